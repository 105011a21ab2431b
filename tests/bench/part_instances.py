"""An app of 2 and of 1000 instances: what a call costs who calls, and what knowing them costs when nobody calls. All of
them are one sidecar, which listens on many addresses of the loopback network."""
import os
import sqlite3
import statistics
import time

from bench import BODY, CONNECTIONS, Bench, answers, cpu_ns, free_port, sidecar, start_nginx, table, wait_for, wrk
from fleet import envoys

IDLE_S = 20
CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  nameResolution:
    component: sqlite
    configuration: {connectionString: "%s", updateInterval: 24h}
"""


TURNS = """local n = 0
request = function()
    n = (n + 1) %% %d
    return wrk.format("GET", "/v1.0/invoke/callee.n" .. n .. "/method/x")
end
"""


class Caller:
    """apps: they are of so many, told apart by namespaces, each of which is called in turn."""

    def __init__(self, bench, port, count, apps=1):
        key = "%d-of-%d" % (count, apps)
        self.count, self.file = count, os.path.join(bench.dir, "hosts-%s.db" % key)
        config = bench.file("hosts-%s.yaml" % key, CONFIG % self.file)
        process, self.port = sidecar(bench, "caller-" + key, env={"OUTRIGGER_LOOPS": "1"}, flags=("--config", config))
        wait_for("the caller", answers(self.port, "/v1.0/healthz", 204))
        addresses = ["127.0.%d.%d:%d" % (i // 250, 1 + i % 250, port) for i in range(count)]
        with sqlite3.connect(self.file) as db:
            db.executemany("INSERT INTO hosts (registration_id, address, app_id, namespace, last_update) VALUES (?, ?, 'callee', ?, ?)",
                           [("i%d" % i, address, "n%d" % (i % apps), int(time.time()) + 3600)
                            for i, address in enumerate(addresses)])
        self.path, self.pids, self.steady, self.full = "/v1.0/invoke/callee.n0/method/x", [process.pid], [], []
        self.script = bench.file("turns.lua", TURNS % apps) if apps > 1 else None


HTTP2 = {"lb_policy": "LEAST_REQUEST", "typed_extension_protocol_options": {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}}}


class Places:
    """What envoys() wants of a fleet."""

    def __init__(self, port, count):
        self.ports = [("127.0.%d.%d" % (i // 250, 1 + i % 250), port) for i in range(count)]


def start_http2(bench):
    """nginx on all addresses, HTTP/2 without TLS."""
    port = free_port()
    conf = bench.file("nginx2/nginx.conf", """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; default_type application/octet-stream;
    client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    server { listen 0.0.0.0:%d http2 backlog=4096; location / { return 200 "%s"; } }
}
""" % (port, "x" * BODY))
    bench.start("nginx", "-p", os.path.join(bench.dir, "nginx2"), "-e", "stderr", "-c", conf, log="nginx2.log")
    return port


def measure(options):
    bench = Bench()
    try:
        app, port = start_nginx(bench), free_port()
        _, http = sidecar(bench, "callee", app, env={"OUTRIGGER_LOOPS": "1"}, internal_port=port,
                          flags=("--dapr-internal-grpc-listen-address", "0.0.0.0"))
        wait_for("the callee", answers(http, "/v1.0/healthz", 204))
        callers = [Caller(bench, port, 2), Caller(bench, port, 1000), Caller(bench, port, 1000, 1000)]
        http2 = start_http2(bench)
        for count in (2, 1000):
            peers = envoys(bench, Places(http2, count), ("envoy", {"cluster": HTTP2, "workers": 1}))
            for peer in peers:
                peer.count, peer.script, peer.steady, peer.full = count, None, [], []
            callers += peers
        idle = {}
        for caller in callers:
            wait_for("the instances", answers(caller.port, caller.path), 30)
            if caller in callers[:2]:
                idle[caller.count] = idle_milli_cores(caller)
            wrk("http://127.0.0.1:%d%s" % (caller.port, caller.path), 3, script=caller.script)  # all are connected to
        for _ in range(options.rounds):
            for caller in callers:
                for connections, sums in ((1, caller.steady), (CONNECTIONS, caller.full)):
                    before = cpu_ns(caller.pids)
                    requests, _ = wrk("http://127.0.0.1:%d%s" % (caller.port, caller.path), connections=connections, script=caller.script)
                    sums.append((cpu_ns(caller.pids) - before) / requests / 1000)
        connected = idle_milli_cores(callers[1])
    finally:
        bench.close()
    rows = []
    for who, two in (("outrigger", callers[:3]), ("envoy", callers[3:])):
        for name, key in (("1 connection", "steady"), ("%d connections" % CONNECTIONS, "full")):
            if two:
                few, many, *apps = (statistics.median(getattr(caller, key)) for caller in two)
                rows.append([who + ", " + name, "%.1f" % few, "%.1f" % many, "%.2f" % (many / few), "%.1f" % apps[0] if apps else ""])
    table(["CPU of who calls, µs/call, HTTP/2 to the instances", "2 instances", "1000 instances", "x", "1000 apps of one"], rows)
    table(["Idle for %d s, milli-cores" % IDLE_S, ""], [
        ["2 known instances", "%.2f" % idle[2]], ["1000 known instances", "%.2f" % idle[1000]],
        ["1000 known instances, connected to all of them", "%.2f" % connected]])


def idle_milli_cores(caller):
    time.sleep(2)  # what the load left to do is over
    before = cpu_ns(caller.pids)
    time.sleep(IDLE_S)  # what is measured is the time it uses in it
    return (cpu_ns(caller.pids) - before) / 1e6 / IDLE_S
