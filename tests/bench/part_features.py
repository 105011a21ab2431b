"""A pair of sidecars with all that a TrafficPolicy has switched on, beside the same pair without one."""
import os
import statistics

from bench import CONNECTIONS, Bench, answers, cpu_ns, family, sidecar, start_nginx, table, wait_for, wrk
from fleet import POLICY

CALLER = """  subsets:
  - {name: old, labels: {version: "1"}}
  - {name: new, labels: {version: "2"}}
  routes:
  - name: of-a-header
    match: [{path: {prefix: /x}, methods: [GET], headers: [{name: x-user, prefix: a}]}]
    to: [{subset: old, weight: 99}, {subset: new, weight: 1}]
    sticky: {header: x-user}
    fallback: any
    timeout: 30s
    retry: {attempts: 1}
  - name: of-others
    match: [{path: {prefix: /y}}]
    to: [{subset: new, weight: 1}]
  environment: {fallback: prod}
  locality: {label: zone, minPercent: 50}
  slowStart: 10s
  ejection: {consecutive: 5}
  healthCheck: {interval: 5s}
  retryBudget: {percent: 20, perSecond: 1}
  hedge: {percentile: 99, maxPercent: 1}
  limits: {connections: 1000, pending: 1000, requests: 1000}
"""
CALLEE = """  inbound:
    concurrency: {}
    rateLimits:
    - {name: all, requests: 1000000, burst: 1000000}
    - {name: each, per: identity, requests: 1000000, burst: 1000000}
"""
HEADER = 'wrk.headers["x-user"] = "alice"\n'


class Pair:
    path = "/v1.0/invoke/callee/method/x"

    def __init__(self, bench, app, name, caller=None, callee=None):
        self.name, self.cpu_us = name, []
        env = {"OUTRIGGER_LOOPS": "1", "OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-" + name)}
        folders = {}
        for side, policy in (("caller", caller), ("callee", callee)):
            folders[side] = os.path.join(bench.dir, name + "-" + side)
            os.makedirs(folders[side])
            if policy:
                bench.file("%s-%s/p.yaml" % (name, side), policy)
        labels = ("--labels", "version=1,zone=a,environment=prod") if caller else ()
        ends = []
        for _ in range(2):
            process, http = sidecar(bench, "callee", app, env=env, resources=folders["callee"], flags=labels)
            wait_for("callee", answers(http, "/v1.0/healthz", 204))
            ends.append(process)
        process, self.port = sidecar(bench, "caller", env=env, resources=folders["caller"], flags=labels)
        wait_for("caller", answers(self.port, self.path))
        self.pids = [pid for one in [process, *ends] for pid in family(one.pid)]


def measure(options):
    bench = Bench()
    try:
        app = start_nginx(bench)
        script = bench.file("header.lua", HEADER)
        pairs = [Pair(bench, app, "off"), Pair(bench, app, "on", POLICY + CALLER, POLICY.replace("  targets: [callee]\n", "") + CALLEE)]
        for pair in pairs:
            wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path), 2, script=script)
        for _ in range(options.rounds):
            for pair in pairs:
                before = cpu_ns(pair.pids)
                requests, _ = wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path), script=script)
                pair.cpu_us.append((cpu_ns(pair.pids) - before) / requests / 1000)
    finally:
        bench.close()
    off, on = (statistics.median(pair.cpu_us) for pair in pairs)
    table(["A caller and two instances, CPU of all three, µs/call, %d connections" % CONNECTIONS, "", "x off"],
          [["no policy", "%.1f" % off, "1.00"],
           ["subsets, weights, stickiness, retry, environment, zone, health checks, hedging, bulkheads; rate limits, adaptive concurrency",
            "%.1f" % on, "%.2f" % (on / off)]])
