"""A canary of 1 %: how exactly it gets that, how soon a change holds and what it costs; a copy of each call beside it."""
import os
import time

from bench import call, put, table, wait_for
from fleet import POLICY, Load, Ours, Scene, envoys

CALLS = 20000
SPLIT = """  subsets:
  - {name: old, labels: {version: "1"}}
  - {name: new, labels: {version: "2"}}
  routes:
  - to: [{subset: old, weight: %d}, {subset: new, weight: %d}]
"""
CHANGES = 10


class Half:
    """The instances of one version, as a fleet."""

    def __init__(self, ports):
        self.ports = ports


def change(peer, weights):
    put(os.path.join(peer.resources, "policy.yaml"), POLICY + SPLIT % weights)


def soon(peer, fleet):
    """(the slowest of so many changes in ms, calls that failed, calls made) while all traffic goes over from one to the other."""
    load, worst = Load(peer, 4), 0
    try:
        for i in range(CHANGES):
            new = i % 2 == 0
            time.sleep(0.5)  # a rate: so often the file changes
            fleet.reset()
            began = time.monotonic()
            change(peer, (0, 1) if new else (1, 0))
            wanted = 2 if new else 0
            wait_for("the other version", lambda: call(fleet.ports[wanted], "GET", "/_stats").json["requests"], pause_s=0.001)
            worst = max(worst, (time.monotonic() - began) * 1000)
    finally:
        load.stop()
    return worst, load.failed, load.total


def measure(_):
    rows = []
    with Scene(3) as (bench, fleet):
        fleet.set(delay_us=0)
        ours = Ours(bench, fleet, policy=SPLIT % (99, 1), callee_flags=lambda i: ("--labels", "version=%d" % (1 + (i == 2))))
        weighted = {"weighted_clusters": {"clusters": [{"name": "next", "weight": 99}, {"name": "new", "weight": 1}]}}
        peers = [ours] + envoys(bench, Half(fleet.ports[:2]), ("envoy, weighted clusters", {
            "routes": [{"match": {"prefix": "/"}, "route": weighted}], "more_clusters": {"new": fleet.ports[2:]}}))
        for peer in peers:
            fleet.reset()
            load = Load(peer, 8, calls=CALLS).wait()
            rows.append([peer.name, "%.2f %%" % fleet.shares()[2], "%d of %d" % (load.failed, load.total)])
        change(ours, (1, 0))
        wait_for_peace(ours, fleet)
        worst, failed, total = soon(ours, fleet)
    table(["Weights 99 and 1, %d calls" % CALLS, "the new version gets", "failed"], rows)
    table(["All traffic from one version to the other and back, %d times, by changing the file" % CHANGES, ""],
          [["the first call of the other version, at worst after", "%.0f ms" % worst], ["failed", "%d of %d" % (failed, total)]])


def wait_for_peace(peer, fleet):
    while True:
        fleet.reset()
        Load(peer, 2, calls=100).wait()
        if fleet.stats()[2]["requests"] == 0:
            return
