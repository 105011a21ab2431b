"""What tracing costs a pair of sidecars: off, ids only, a tenth of the calls sampled, and with a collector that hangs."""
import http.server
import os
import socket
import statistics
import threading

from bench import Bench, answers, cpu_ns, family, free_port, sidecar, start_nginx, table, wait_for, wrk

CONFIG = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: t}\nspec:\n  tracing:\n    samplingRate: \"%s\"\n"
          "    otel: {endpointAddress: \"127.0.0.1:%d\", protocol: http, isSecure: false}\n")


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    batches = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Collector.batches += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Pair:
    def __init__(self, bench, app, name, rate=None, collector=None):
        self.name, self.path, key = name, "/v1.0/invoke/callee/method/x", name.replace(" ", "-").replace(",", "")
        env = {"OUTRIGGER_LOOPS": "1", "OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-" + key)}
        flags = ["--config", bench.file(key + ".yaml", CONFIG % (rate, collector))] if rate else []
        callee, port = sidecar(bench, "callee", app, env=env, flags=flags)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        caller, self.port = sidecar(bench, "caller", env=env, flags=flags)
        wait_for("caller", answers(self.port, self.path))
        self.pids = [pid for process in (caller, callee) for pid in family(process.pid)]
        self.cpu_us = []


def measure(options):
    bench = Bench()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hung = socket.create_server(("127.0.0.1", free_port()), backlog=64)  # accepts, as the kernel does, and never answers
    try:
        app, port = start_nginx(bench), server.server_address[1]
        pairs = [Pair(bench, app, "off"), Pair(bench, app, "ids only", "0.0000001", port),
                 Pair(bench, app, "a tenth", "0.1", port),
                 Pair(bench, app, "a tenth, collector hangs", "0.1", hung.getsockname()[1])]
        for pair in pairs:
            wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path), 1)
        for _ in range(options.rounds):
            for pair in pairs:
                before = cpu_ns(pair.pids)
                calls = wrk("http://127.0.0.1:%d%s" % (pair.port, pair.path))[0]
                pair.cpu_us.append((cpu_ns(pair.pids) - before) / 1e3 / calls)
    finally:
        bench.close()
        server.shutdown()
    if not Collector.batches:
        raise RuntimeError("no spans came")
    table(["Tracing, client -> sidecar -> sidecar -> app", "CPU of both, us/request", "x off"],
          [[pair.name, "%.1f" % statistics.median(pair.cpu_us),
            "%.3f" % statistics.median(mine / off for mine, off in zip(pair.cpu_us, pairs[0].cpu_us))] for pair in pairs])
