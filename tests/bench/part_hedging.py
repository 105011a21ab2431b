"""One call in twenty takes 200 ms at each of three instances: with and without a second request for late calls."""
from bench import openload, table
from fleet import Ours, Scene, envoys, warm

RATE, SECONDS = 200, 15


def hedging(percent):
    return "  hedge: {percentile: %d, maxPercent: 10}\n" % percent


def measure(_):
    rows = []
    with Scene(3) as (bench, fleet):
        fleet.set(delay_us=2000)
        hedged = {"route": {"hedge_policy": {"hedge_on_per_try_timeout": True}, "retry_policy": {
            "retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.02s"}}}
        peers = [Ours(bench, fleet, "outrigger, without"),
                 Ours(bench, fleet, "outrigger, late after the 90th percentile", hedging(90)),
                 Ours(bench, fleet, "outrigger, late after 20 ms", "  hedge: {after: 20ms, maxPercent: 10}\n")]
        peers += envoys(bench, fleet, ("envoy, without", {}), ("envoy, late after 20 ms", hedged))
        for peer in peers:
            fleet.set(tail_us=0, tail_percent=0)
            warm(peer, fleet, 400)
            fleet.set(tail_us=200000, tail_percent=5)
            result = openload(peer.port, peer.path, RATE, SECONDS, 64, may_fail=True)
            stats = fleet.reset()
            reached, cancelled = (sum(one[key] for one in stats) for key in ("requests", "cancelled"))
            rows.append([peer.name, *("%.1f ms" % (result[key] / 1000) for key in ("p50", "p90", "p99")),
                         "%.3f" % (reached / result["sent"]), "%d" % cancelled, "%d" % result["errors"]])
    print("3 instances that answer in 2 ms, 5 of 100 calls in 200 ms; %d calls/s for %d s" % (RATE, SECONDS))
    table(["", "p50", "p90", "p99", "requests for each call", "cancelled of them", "failed"], rows)
