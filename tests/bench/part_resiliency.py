"""What a Resiliency policy around every call costs: the pair of part_proxy, with timeout, retry and breaker for the
callee, and a deadline in each request, beside the same pair without."""
import os
import statistics

from bench import Bench, Outrigger, answers, cpu_ns, family, sidecar, start_nginx, table, wait_for, wrk

POLICY = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies:
    timeouts: {t: 5s}
    retries: {r: {policy: exponential, maxRetries: 3}}
    circuitBreakers: {b: {trip: consecutiveFailures > 5}}
  targets: {apps: {callee: {timeout: t, retry: r, circuitBreaker: b}}}
"""


class Guarded(Outrigger):
    def __init__(self, bench, app):
        env = {"OUTRIGGER_LOOPS": "1"}
        callee, port = sidecar(bench, "callee2", app, env=env)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        bench.file("policies/r.yaml", POLICY.replace("callee", "callee2"))
        caller, self.port = sidecar(bench, "caller2", resources=os.path.join(bench.dir, "policies"), env=env)
        self.path = "/v1.0/invoke/callee2/method/x"
        self.processes = [caller, callee]


def measure(options):
    bench = Bench()
    try:
        app = start_nginx(bench)
        script = bench.file("deadline.lua", 'wrk.headers["outrigger-timeout"] = "5S"\n')
        pairs = [(Outrigger(bench, app), None), (Guarded(bench, app), script)]
        for pair, lua in pairs:
            wait_for("the pair", answers(pair.port, pair.path))
            pair.pids = [pid for process in pair.processes for pid in family(process.pid)]
            pair.cpu_us = []
            wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path), 1, script=lua)
        for _ in range(options.rounds):
            for pair, lua in pairs:
                before = cpu_ns(pair.pids)
                requests, _ = wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path), script=lua)
                pair.cpu_us.append((cpu_ns(pair.pids) - before) / requests / 1000)
    finally:
        bench.close()
    off, on = (statistics.median(pair.cpu_us) for pair, _ in pairs)
    table(["CPU of both, µs/request", "", "x without"],
          [["no policy", "%.1f" % off, "1.00"],
           ["timeout, retry, breaker, and a deadline with each request", "%.1f" % on, "%.2f" % (on / off)]])
