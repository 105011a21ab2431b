"""A deadline of 50 ms: when the caller has his answer, when the work at the instance is ended, and what is sent after it is over."""
from bench import openload, table
from fleet import Ours, Scene, envoys, warm

DEADLINE_MS = 50
STREAM = {"route": {"max_stream_duration": {"grpc_timeout_header_max": "0s"}}}


def measure(_):
    rows = []
    with Scene(2) as (bench, fleet):
        peers = [(Ours(bench, fleet, callee_flags=("--app-max-concurrency", "4")), [("outrigger-timeout", "50m")])]
        grpc = [("grpc-timeout", "50m"), ("te", "trailers"), ("content-type", "application/grpc")]
        four = {"circuit_breakers": {"thresholds": [{"max_connections": 4}]}}
        for envoy in envoys(bench, fleet, ("envoy, as it is", {"cluster": four}),
                            ("envoy, told to heed grpc-timeout", {**STREAM, "cluster": four}),
                            ("envoy, route timeout of 50 ms", {"route": {"timeout": "0.05s"}, "cluster": four})):
            peers.append((envoy, grpc))
        for peer, headers in peers:
            fleet.set(delay_us=1000)
            warm(peer, fleet)
            fleet.set(delay_us=500000)  # too slow for anybody
            alone = openload(peer.port, peer.path, 5, 10, 32, DEADLINE_MS, headers, may_fail=True)
            ended = fleet.reset()
            fleet.set(delay_us=20000)  # 4 at a time of each, so 400/s
            openload(peer.port, peer.path, 1000, 5, 200, DEADLINE_MS, headers, may_fail=True)
            late, cancelled = fleet.reset(), sum(one["cancelled"] for one in ended)
            rows.append([peer.name, "%.1f ms, %.1f ms" % (alone["p50"] / 1000, alone["max"] / 1000),
                         "%d of %d" % (cancelled, alone["sent"]),
                         "%.1f ms, %.1f ms" % (max(one["left_p50_us"] for one in ended) / 1000,
                                               max(one["left_max_us"] for one in ended) / 1000) if cancelled else "never",
                         "%d of %d" % (sum(one["expired"] for one in late), sum(one["requests"] for one in late))])
    print("Deadline of %d ms; 2 instances that take 500 ms, 5 calls/s; then 2 that take 20 ms and 4 calls at a time, 1000 calls/s"
          % DEADLINE_MS)
    table(["", "answered after, median, worst", "work ended by a cancellation", "which came so long after the deadline, median, worst",
           "requests that reach an instance more than 5 ms after it"], rows)
