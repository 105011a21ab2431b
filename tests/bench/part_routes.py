"""What a table of routes costs a call: none, ten and ten thousand, half of them exact paths and half beginnings."""
import os
import statistics

from bench import CONNECTIONS, Bench, answers, cpu_ns, sidecar, start_nginx, table, wait_for, wrk
from fleet import POLICY, envoys

ROUTES = 10000


def rules(count):
    if count == 0:
        return ""
    return "  routes:\n" + "".join("  - {name: r%d, match: [{path: {%s: /%s/%d%s}}]}\n" % (
        i, "exact" if i % 2 else "prefix", "exact" if i % 2 else "prefix", i, "" if i % 2 else "/") for i in range(count))


def paths(count):
    """An exact one, one by its beginning, from the end of the table; and one that no route has."""
    last = max(count, 2)
    return ["exact/%d" % (last - 1), "prefix/%d/x" % (last - 2), "none"]


TURNS = """local paths, n = {%s}, 0
request = function()
    n = n %% #paths + 1
    return wrk.format("GET", paths[n])
end
"""


class Caller:
    def __init__(self, bench, count):
        self.name = "outrigger, %d" % count
        folder = os.path.join(bench.dir, "routes-%d" % count)
        os.makedirs(folder)
        if count:
            bench.file("routes-%d/p.yaml" % count, POLICY + rules(count))
        process, self.port = sidecar(bench, "caller%d" % count, env={"OUTRIGGER_LOOPS": "1"}, resources=folder)
        wait_for("the caller", answers(self.port, "/v1.0/healthz", 204), 30)
        self.pids, self.paths = [process.pid], ["/v1.0/invoke/callee/method/" + path for path in paths(count)]


class One:
    def __init__(self, port):
        self.ports = [port]


def envoy_routes(count):
    mine = [{"match": {"path" if i % 2 else "prefix": "/%s/%d%s" % ("exact" if i % 2 else "prefix", i, "" if i % 2 else "/")},
             "route": {"cluster": "next", "timeout": "30s"}} for i in range(count)]
    return mine + [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]


def measure(options):
    bench, peers = Bench(), []
    try:
        app = start_nginx(bench)
        _, http = sidecar(bench, "callee", app, env={"OUTRIGGER_LOOPS": "1"})
        wait_for("the callee", answers(http, "/v1.0/healthz", 204))
        for count in (0, 10, ROUTES):
            peers.append(Caller(bench, count))
        for count in (0, 10, ROUTES):
            for envoy in envoys(bench, One(app), ("envoy, %d" % count, {"routes": envoy_routes(count), "workers": 1})):
                envoy.paths = ["/" + path for path in paths(count)]
                peers.append(envoy)
        for peer in peers:
            peer.cpu_us = []
            peer.script = bench.file("turns-%d.lua" % peer.port, TURNS % ", ".join('"%s"' % path for path in peer.paths))
            for path in peer.paths:
                wait_for(peer.name, answers(peer.port, path), 30)
            wrk("http://127.0.0.1:%d/" % peer.port, 1, script=peer.script)
        for _ in range(options.rounds):
            for peer in peers:
                before = cpu_ns(peer.pids)
                requests, _ = wrk("http://127.0.0.1:%d/" % peer.port, script=peer.script)
                peer.cpu_us.append((cpu_ns(peer.pids) - before) / requests / 1000)
    finally:
        bench.close()
    print("A third of the calls each: an exact path, a beginning, none of them; %d connections; median of %d rounds"
          % (CONNECTIONS, options.rounds))
    rows, base = [], None
    for peer in peers:
        cpu_us = statistics.median(peer.cpu_us)
        base = cpu_us if peer.name.endswith(", 0") else base
        rows.append([peer.name, "%.1f" % cpu_us, "%+.1f" % (cpu_us - base)])
    table(["Routes", "CPU of who calls, µs/call", "more than with none"], rows)
