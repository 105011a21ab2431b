"""Five instances of one app: what a slow one gets, what one that fails fast gets, and when it is back."""
import time

from bench import table
from fleet import Load, Ours, Scene, envoys, warm

BASE_US, SLOW_US = 5000, 200000
PART_S = 10


def share(peer, fleet, clients, seconds=PART_S, **more):
    fleet.reset()
    Load(peer, clients, seconds=seconds, **more).wait()
    return fleet.shares()[0]


def recover(peer, fleet):
    """Seconds until the instance that was slow had a share of 20 +- 4 % again, over windows of 2 s; None: not within 40 s."""
    fleet.set(0, delay_us=BASE_US)
    began, load = time.monotonic(), Load(peer, 4, seconds=60)
    try:
        while time.monotonic() - began < 40:
            fleet.reset()
            time.sleep(2)  # a window: its share is measured over it
            if 16 <= fleet.shares()[0] <= 24:
                return time.monotonic() - began
        return None
    finally:
        load.stop()


def measure(_):
    rows = []
    with Scene(5) as (bench, fleet):
        fleet.set(delay_us=BASE_US)
        peers = [Ours(bench, fleet)] + envoys(bench, fleet, ("envoy, least request", {"cluster": {"lb_policy": "LEAST_REQUEST"}}),
                                              ("envoy, round robin", {}))
        for peer in peers:
            fleet.set(delay_us=BASE_US, status=0)
            warm(peer, fleet)
            fleet.set(0, delay_us=BASE_US + SLOW_US)
            one, four = share(peer, fleet, 1), share(peer, fleet, 4)
            back = recover(peer, fleet)
            fleet.set(0, delay_us=0, status=503)
            fast = share(peer, fleet, 4, verb="POST")
            rows.append([peer.name, "%.2f %%" % one, "%.2f %%" % four, "%.0f s" % back if back else "not in 40 s", "%.2f %%" % fast])
    print("5 instances that answer in %d ms, one of them %d ms later; %d s each" % (BASE_US / 1000, SLOW_US / 1000, PART_S))
    table(["of the calls", "the slow one gets, 1 client", "4 clients", "has 20 +- 4 % again after", "one that answers 503 at once gets"],
          rows)
