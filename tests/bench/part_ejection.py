"""What an instance that fails costs callers: until it is ejected first, with each try to take it back, and one that
fails half of the time. Callers POST, so nothing is made again for them: each failure is seen."""
import re
import time

from bench import TimedOut, call, table, wait_for
from fleet import Load, Ours, Scene, envoys, warm

RATE = 40  # calls a second for each instance
WATCH_S = 50
OUTLIER = {"consecutive_5xx": 5, "interval": "1s", "base_ejection_time": "5s", "max_ejection_percent": 50}


def ejections(peer):
    """How often an instance has been ejected, or found of no use again."""
    if peer.name.startswith("envoy"):
        text = call(peer.admin, "GET", "/stats?filter=outlier_detection.ejections_enforced_total").body.decode()
        return int(re.search(r"ejections_enforced_total: (\d+)", text)[1])
    text = call(peer.metrics_port, "GET", "/metrics").body.decode()
    return sum(float(n) for n in re.findall(r'outrigger_ejections_total\{[^}]*change="ejected"[^}]*\} (\S+)', text))


def steady(peer, seconds=None, verb="POST"):
    clients = 8
    return Load(peer, clients, seconds=seconds, verb=verb, pause_s=clients / (RATE * 3))


def first_trip(peer, fleet):
    """What the instance that fails has got when it is ejected for the first time, and right after."""
    fleet.reset()
    load = steady(peer)
    try:
        wait_for("the ejection of " + peer.name, lambda: ejections(peer) > 0, 60)
        time.sleep(1)  # what comes right after it is counted, too
        return fleet.stats()[0]["failed"]
    finally:
        load.stop()


def measure(_):
    rows = []
    for half in (False, True):
        with Scene(3) as (bench, fleet):
            fleet.set(delay_us=1000)
            peers = [Ours(bench, fleet)] + envoys(bench, fleet, ("envoy, outlier detection", {
                "cluster": {"lb_policy": "LEAST_REQUEST", "outlier_detection": OUTLIER}}))
            for peer in peers:
                fleet.set(status=0)
                warm(peer, fleet)
                fleet.set(0, status=503, percent=50 if half else 100)
                if half:
                    next(row for row in rows if row[0] == peer.name).append(seen_before_ejection(peer, fleet))
                    continue
                trip = first_trip(peer, fleet)
                fleet.reset()
                load = steady(peer, WATCH_S)
                revivals = watch(peer, fleet)
                load.wait()
                failed = fleet.stats()[0]["failed"]
                rows.append([peer.name, "%d" % trip, "%.1f (%d of them)" % (failed / max(1, revivals), revivals), "%d" % load.failed])
    print("3 instances, %d calls/s to each, one answers 503; an ejection lasts 5 s at first (Envoy: base_ejection_time)" % RATE)
    table(["", "failures until it is ejected first", "failures for each time it is tried again", "failed of %d s" % WATCH_S,
           "one that fails half of the time is ejected after"], rows)


def watch(peer, fleet):
    """Rounds of trying it again within WATCH_S: bursts of failures with a second of peace between them."""
    rounds, last, quiet_since = 0, 0, time.monotonic() - 2
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        failed = fleet.stats()[0]["failed"]
        if failed > last:
            if time.monotonic() - quiet_since > 1:
                rounds += 1
            quiet_since = time.monotonic()
        last = failed
        time.sleep(0.05)  # a rate: samples
    return rounds


def seen_before_ejection(peer, fleet):
    """Requests it got until then; the load goes on for a minute at most."""
    fleet.reset()
    load = steady(peer)
    try:
        wait_for("the ejection of " + peer.name, lambda: ejections(peer) > 0, 60, 0.002)
        return "%d requests" % fleet.stats()[0]["requests"]
    except TimedOut:
        return "not within %d requests" % fleet.stats()[0]["requests"]
    finally:
        load.stop()
