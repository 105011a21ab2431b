"""Measures Outrigger beside nghttpx and haproxy in the same minutes and prints markdown (called by tests/bench/run).

CPU is what the kernel charged to all threads of the proxies (schedstat) while wrk ran; latency comes from
openload, which keeps a constant rate. Peers take turns in every round; medians are shown."""
import argparse
import concurrent.futures
import contextlib
import datetime
import glob
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
os.environ.setdefault("OUTRIGGER_BIN", os.path.join(TOP, "build", "bin"))
from harness import BIN, Client, Port, call, component, wait_for  # noqa: E402

OPENLOAD = os.path.join(TOP, "build", "bench", "openload")
BODY = 1024
CONNECTIONS = 32
WRK_S = 4
RATE = 1000
RATE_S = 5
CALLS = 100000
DAPR = "/dapr.proto.runtime.v1.Dapr/"


# ---------------------------------------------------------------- processes and what they use
class Bench:
    """A scratch directory and the processes that were started."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="run-", dir=os.path.join(TOP, "build", "bench"))  # a disk, not a tmpfs
        self.processes = []

    def start(self, *command, env=None, log="log"):
        with open(os.path.join(self.dir, log), "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.dir,
                                       env={**os.environ, "OUTRIGGER_RUN_DIR": os.path.join(self.dir, "registry"), **(env or {})})
        self.processes.append(process)
        return process

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.processes.remove(process)

    def close(self):
        for process in list(self.processes):
            self.stop(process)
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self, log="log"):
        with open(os.path.join(self.dir, log), errors="replace") as file:
            return file.read()

    def file(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write(text)
        return path


def family(pid):
    """A process and its children (nghttpx works in one)."""
    pids = [pid]
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            with open(path) as file:
                fields = file.read().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid:
                pids.append(int(path.split("/")[2]))
    return pids


def cpu_ns(pids):
    total = 0
    for pid in pids:
        for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
            with contextlib.suppress(OSError):
                with open(path) as file:
                    total += int(file.read().split()[0])
    return total


def pss_kib(pids):
    total = 0
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def free_port():
    port = Port()
    port.release()
    return port.number


def answers(port, path="/", status=200):
    return lambda: call(port, "GET", path, timeout_s=2).status == status


def wrk(url, seconds=WRK_S, connections=CONNECTIONS, script=None):
    """(requests, requests per second)"""
    command = ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds] + (["-s", script] if script else []) + [url]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    requests, rate = re.search(r"(\d+) requests in", out), re.search(r"Requests/sec:\s*([\d.]+)", out)
    if not requests or "Non-2xx" in out or re.search(r"Socket errors: (?!connect 0, read 0, write 0, timeout 0)", out):
        raise RuntimeError("wrk %s: %s" % (url, out))
    return int(requests[1]), float(rate[1])


def h2load(port, path, message, calls=100000, connections=8, streams=4, app_id=None):
    """gRPC calls of one message, so many streams at a time on each connection; their rate per second."""
    target = ["-H", "dapr-app-id: " + app_id] if app_id else []
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + struct.pack(">I", len(message)) + message)
        body.flush()
        out = subprocess.run(["h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", body.name,
                              "-H", "content-type: application/grpc", "-H", "te: trailers", *target,
                              "http://127.0.0.1:%d%s" % (port, path)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    if "%d succeeded, 0 failed, 0 errored" % calls not in out:
        raise RuntimeError("h2load %s: %s" % (path, out))
    return float(re.search(r"([\d.]+) req/s", out)[1])


def openload(port, path, rate=RATE, seconds=RATE_S):
    out = subprocess.run([OPENLOAD, "127.0.0.1", str(port), path, str(rate), str(seconds), str(CONNECTIONS)],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if out.returncode != 0:
        raise RuntimeError("openload: " + out.stderr)
    result = json.loads(out.stdout)
    if result["errors"] or result["answered"] != result["sent"]:
        raise RuntimeError("openload: %s" % out.stdout)
    return result


# ---------------------------------------------------------------- what is measured
def start_nginx(bench):
    port = free_port()
    conf = bench.file("nginx/nginx.conf", """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; default_type application/octet-stream;
    client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    server { listen 127.0.0.1:%d backlog=4096; location / { return 200 "%s"; } }
}
""" % (port, "x" * BODY))
    bench.start("nginx", "-p", os.path.join(bench.dir, "nginx"), "-e", "stderr", "-c", conf, log="nginx.log")
    wait_for("nginx", answers(port))
    return port


def sidecar(bench, app_id, app_port=None, resources=None, env=None, flags=(), grpc_port=None):
    """(process, its HTTP port)"""
    ports = {flag: free_port() for flag in ("dapr-http-port", "dapr-grpc-port", "dapr-internal-grpc-port", "metrics-port")}
    ports["dapr-grpc-port"] = grpc_port or ports["dapr-grpc-port"]
    command = [os.path.join(BIN, "outriggerd"), "--app-id", app_id, "--dapr-listen-addresses", "127.0.0.1", *flags]
    for flag, port in ports.items():
        command += ["--" + flag, str(port)]
    if app_port:
        command += ["--app-port", str(app_port)]
    if resources:
        command += ["--resources-path", resources]
    return bench.start(*command, env=env, log=app_id + ".log"), ports["dapr-http-port"]


class Outrigger:
    name = "outrigger"
    path = "/v1.0/invoke/callee/method/x"

    def __init__(self, bench, app, env=None):
        env = {"OUTRIGGER_LOOPS": "1"} if env is None else env
        callee, port = sidecar(bench, "callee", app, env=env)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        caller, self.port = sidecar(bench, "caller", env=env)
        self.processes = [caller, callee]

    @staticmethod
    def version():
        return subprocess.check_output([os.path.join(BIN, "outriggerd"), "--build-info"], text=True).split("\n")[0]


class Nghttpx:
    name = "nghttpx"
    path = "/x"

    def __init__(self, bench, app):
        self.port, middle = free_port(), free_port()
        common = ["--workers=1", "--no-ocsp", "--log-level=ERROR", "--conf=/dev/null", "--errorlog-file=/dev/null"]
        self.processes = [
            bench.start("nghttpx", *common, "-f127.0.0.1,%d;no-tls" % self.port, "-b127.0.0.1,%d;;no-tls;proto=h2" % middle),
            bench.start("nghttpx", *common, "-f127.0.0.1,%d;no-tls" % middle, "-b127.0.0.1,%d;;no-tls" % app)]

    @staticmethod
    def version():
        return subprocess.check_output(["nghttpx", "--version"], text=True).strip()


class Haproxy:
    name = "haproxy"
    path = "/x"

    def __init__(self, bench, app):
        self.port, middle = free_port(), free_port()
        common = "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n"
        first = bench.file("haproxy1.cfg", common + "frontend f\n  bind 127.0.0.1:%d\n  default_backend b\nbackend b\n"
                           "  server s 127.0.0.1:%d proto h2\n" % (self.port, middle))
        second = bench.file("haproxy2.cfg", common + "frontend f\n  bind 127.0.0.1:%d proto h2\n  default_backend b\nbackend b\n"
                            "  server s 127.0.0.1:%d\n" % (middle, app))
        self.processes = [bench.start("haproxy", "-db", "-q", "-f", first), bench.start("haproxy", "-db", "-q", "-f", second)]

    @staticmethod
    def version():
        return subprocess.check_output(["haproxy", "-v"], text=True).split("\n")[0].split(" - ")[0]


# ---------------------------------------------------------------- parts
def table(head, rows):
    print("\n| " + " | ".join(head) + " |")
    print("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def measure_proxy(options):
    bench = Bench()
    try:
        app = start_nginx(bench)
        peers = [make(bench, app) for make in (Outrigger, Nghttpx, Haproxy)]
        for peer in peers:
            wait_for(peer.name, answers(peer.port, peer.path))
            if len(call(peer.port, "GET", peer.path).body) != BODY:
                raise RuntimeError(peer.name + " does not pass the body on")
            wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path), 1)
            peer.pids = [pid for process in peer.processes for pid in family(process.pid)]
            peer.cpu_us, peer.rate, peer.p50, peer.p99 = [], [], [], []
        for _ in range(options.rounds):
            for peer in peers:
                before = cpu_ns(peer.pids)
                requests, rate = wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path))
                peer.cpu_us.append((cpu_ns(peer.pids) - before) / requests / 1000)
                peer.rate.append(rate)
            for peer in peers:
                latency = openload(peer.port, peer.path)
                peer.p50.append(latency["p50"])
                peer.p99.append(latency["p99"])
    finally:
        bench.close()
    print("Client -> sidecar -> sidecar -> app (HTTP/1.1 -> HTTP/2 -> HTTP/1.1), plain, %d B, %d keep-alive connections, "
          "one worker each, app = nginx; median of %d rounds" % (BODY, CONNECTIONS, options.rounds))
    base = {key: statistics.median(getattr(peers[1], key)) for key in ("cpu_us", "p50", "p99")}
    rows = []
    for peer in peers:
        medians = {key: statistics.median(getattr(peer, key)) for key in ("cpu_us", "rate", "p50", "p99")}
        rows.append([peer.name + " pair", "%.1f" % medians["cpu_us"], "%.2f" % (medians["cpu_us"] / base["cpu_us"]),
                     "%.0f" % medians["rate"], "%d" % medians["p50"], "%.2f" % (medians["p50"] / base["p50"]),
                     "%d" % medians["p99"], "%.2f" % (medians["p99"] / base["p99"])])
    table(["", "CPU of both, µs/request", "x nghttpx", "requests/s at most", "p50 µs at %d/s" % RATE, "x nghttpx",
           "p99 µs at %d/s" % RATE, "x nghttpx"], rows)


def measure_memory(options):
    bench, count = Bench(), 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard - 200)
    try:
        app = start_nginx(bench)
        pair = Outrigger(bench, app, env={})
        wait_for("the pair", answers(pair.port, pair.path))
        time.sleep(1)
        idle = [pss_kib([p.pid]) for p in pair.processes]
        clients = []
        for _ in range(count):
            client = Client(pair.port, timeout_s=10)
            if client.call("GET", "/v1.0/healthz").status != 204:
                raise RuntimeError("a held connection got no answer")
            clients.append(client)
        time.sleep(1)
        held = pss_kib([pair.processes[0].pid])
        alive = sum(client.call("GET", "/v1.0/healthz").status == 204 for client in clients[::100])
        for client in clients:
            client.close()
        time.sleep(25)  # memory kept for the next burst goes back after two quiet looks, 10 s apart
        after = pss_kib([pair.processes[0].pid])
    finally:
        bench.close()
    if alive != len(clients[::100]):
        raise RuntimeError("held connections were lost")
    table(["Memory (PSS)", ""], [
        ["idle sidecar, %d loops" % os.cpu_count(), "%.1f MiB" % (max(idle) / 1024)],
        ["per idle keep-alive connection, %d held" % count, "%.1f KiB" % ((held - idle[0]) / count)],
        ["25 s after they are closed", "%.1f MiB" % (after / 1024)]])


def sqlite_resources(bench):
    os.makedirs(os.path.join(bench.dir, "resources"), exist_ok=True)
    bench.file("resources/st.yaml", component("st", "state.sqlite", {"connectionString": os.path.join(bench.dir, "state.db")}))
    bench.file("resources/ps.yaml", component("ps", "pubsub.sqlite", {"connectionString": os.path.join(bench.dir, "ps.db")}))
    return os.path.join(bench.dir, "resources")


def measure_start(options):
    bench, times = Bench(), []
    try:
        resources = sqlite_resources(bench)
        for _ in range(25):
            began = time.monotonic()
            process, port = sidecar(bench, "start", resources=resources)
            while True:
                with contextlib.suppress(OSError, EOFError):
                    if call(port, "GET", "/v1.0/healthz", timeout_s=2).status == 204:
                        break
                time.sleep(0.0002)
                if process.poll() is not None or time.monotonic() - began > 20:
                    raise RuntimeError("no start: " + bench.log("start.log"))
            times.append((time.monotonic() - began) * 1000)
            bench.stop(process)
    finally:
        bench.close()
    table(["Start to healthz 204, SQLite state store and pub/sub", "ms"],
          [["median of %d" % len(times), "%.1f" % statistics.median(times)], ["worst", "%.1f" % max(times)]])


def measure_idle(options):
    bench = Bench()
    try:
        resources = sqlite_resources(bench)
        app = start_nginx(bench)
        callee, port = sidecar(bench, "callee", app, resources=resources)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        time.sleep(2)
        seconds = options.idle_seconds
        before, began = cpu_ns([callee.pid]), time.monotonic()
        time.sleep(seconds)
        used = (cpu_ns([callee.pid]) - before) / 1e9 / (time.monotonic() - began) * 1000
    finally:
        bench.close()
    table(["Idle CPU of a sidecar with its app, SQLite state store and pub/sub, %d s" % seconds, ""],
          [["", "%.3f milli-cores" % used]])


SAVE = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, '[{"key":"k' .. (n %% %d) .. '","value":{"n":' .. n .. '}}]')
end
"""


def measure_state(options):
    bench = Bench()
    try:
        memory = bench.file("memory/st.yaml", component("st", "state.in-memory"))
        save = bench.file("save.lua", SAVE % 1000)
        process, port = sidecar(bench, "memory", resources=os.path.dirname(memory), env={"OUTRIGGER_LOOPS": "1"})
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        url = "http://127.0.0.1:%d" % port
        wrk(url + "/v1.0/state/st", 1, script=save)
        kinds = {"bare answer (GET /v1.0/healthz)": (url + "/v1.0/healthz", None), "get, in-memory": (url + "/v1.0/state/st/k1", None),
                 "save, in-memory": (url + "/v1.0/state/st", save)}
        cpu = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, (target, script) in kinds.items():
                before = cpu_ns([process.pid])
                requests, _ = wrk(target, 2, script=script)
                cpu[name].append((cpu_ns([process.pid]) - before) / requests / 1000)
        bench.stop(process)
        process, port = sidecar(bench, "sqlite", resources=sqlite_resources(bench))
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        saves = [wrk("http://127.0.0.1:%d/v1.0/state/st" % port, 3, connections=16, script=save)[1] for _ in range(options.rounds)]
    finally:
        bench.close()
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    bare = next(iter(medians.values()))
    table(["State over HTTP", "CPU, µs/request", "x bare"],
          [[name, "%.1f" % value, "%.2f" % (value / bare)] for name, value in medians.items()])
    table(["Durable saves, state.sqlite, 16 connections", "per second"], [["median of %d" % len(saves), "%.0f" % statistics.median(saves)]])


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def measure_rpc(options):
    bench = Bench()
    messages = {"GetState": field(1, b"st") + field(2, b"k1"),
                "SaveState": field(1, b"st") + field(2, field(1, b"k1") + field(2, b'{"n":1}')),
                "PublishEvent": field(1, b"ps") + field(2, b"t") + field(3, b"{}") + field(4, b"application/json"),
                "GetMetadata": b""}
    try:
        bench.file("memory/st.yaml", component("st", "state.in-memory"))
        resources = os.path.dirname(bench.file("memory/ps.yaml", component("ps", "pubsub.in-memory")))
        grpc_port = free_port()
        process, port = sidecar(bench, "memory", resources=resources, env={"OUTRIGGER_LOOPS": "1"}, grpc_port=grpc_port)
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        cpu = {name: [] for name in messages}
        h2load(grpc_port, DAPR + "SaveState", messages["SaveState"], 8)
        for _ in range(options.rounds):
            for name, message in messages.items():
                before = cpu_ns([process.pid])
                h2load(grpc_port, DAPR + name, message, CALLS)
                cpu[name].append((cpu_ns([process.pid]) - before) / CALLS / 1000)
    finally:
        bench.close()
    table(["The Dapr service over gRPC, in-memory components", "CPU, µs/call"],
          [[name, "%.1f" % statistics.median(values)] for name, values in cpu.items()])


class GrpcOutrigger:
    name, app_id = "outrigger", "callee"

    def __init__(self, bench, app):
        self.port, flags, env = free_port(), ["--max-body-size", "2Gi"], {"OUTRIGGER_LOOPS": "1"}
        callee, port = sidecar(bench, "callee", app, env=env, flags=["--app-protocol", "grpc", *flags])
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        caller, port = sidecar(bench, "caller", env=env, flags=flags, grpc_port=self.port)
        wait_for("caller", answers(port, "/v1.0/healthz", 204))
        self.processes = [caller, callee]


class GrpcNghttpx:
    name, app_id = "nghttpx", None

    def __init__(self, bench, app):
        self.port, middle = free_port(), free_port()
        common = ["--workers=1", "--no-ocsp", "--log-level=ERROR", "--conf=/dev/null", "--errorlog-file=/dev/null"]
        self.processes = [
            bench.start("nghttpx", *common, "-f127.0.0.1,%d;no-tls" % self.port, "-b127.0.0.1,%d;;no-tls;proto=h2" % middle),
            bench.start("nghttpx", *common, "-f127.0.0.1,%d;no-tls" % middle, "-b127.0.0.1,%d;;no-tls;proto=h2" % app)]


def measure_stream(peer, size):
    """(MiB per second, KiB by which the processes of the pair grew at most): one call, size bytes there and back."""
    before, most = pss_kib(peer.pids), 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        call_ = pool.submit(h2load, peer.port, "/echo.Echo/Stream", bytes(size), 1, 1, 1, peer.app_id)
        while not call_.done():
            most = max(most, pss_kib(peer.pids) - before)
            concurrent.futures.wait([call_], timeout=0.05)
        call_.result()
        return 2 * size / (1 << 20) / (time.monotonic() - began), most


def measure_grpc(options):
    """Proxied calls of a service that neither pair knows; the app sends back what it gets."""
    bench, size, message = Bench(), 1 << 30, bytes(BODY)
    app = free_port()
    try:
        bench.start("nghttpd", "--no-tls", "--address=127.0.0.1", "--echo-upload", "--trailer=grpc-status: 0", "--window-bits=20",
                    "--connection-window-bits=24", str(app))
        wait_for("nghttpd", lambda: socket.create_connection(("127.0.0.1", app), 1).close() is None)
        peers = [make(bench, app) for make in (GrpcOutrigger, GrpcNghttpx)]
        for peer in peers:
            wait_for(peer.name, lambda: h2load(peer.port, "/echo.Echo/Unary", message, 1000, app_id=peer.app_id) > 0)
            peer.pids = [pid for process in peer.processes for pid in family(process.pid)]
            peer.cpu_us, peer.rate, peer.stream, peer.growth = [], [], [], []
        for _ in range(options.rounds):
            for peer in peers:
                before = cpu_ns(peer.pids)
                peer.rate.append(h2load(peer.port, "/echo.Echo/Unary", message, CALLS, app_id=peer.app_id))
                peer.cpu_us.append((cpu_ns(peer.pids) - before) / CALLS / 1000)
        for _ in range(min(options.rounds, 3)):
            for peer in peers:
                rate, growth = measure_stream(peer, size - 1024)
                peer.stream.append(rate)
                peer.growth.append(growth)
        ours = peers[0]
        idle = pss_kib(ours.pids)
        at_once = h2load(ours.port, "/echo.Echo/Unary", message, 20000, connections=1, streams=1000, app_id=ours.app_id)
        h2load(ours.port, "/echo.Echo/Unary", message, CALLS, app_id=ours.app_id)
        time.sleep(25)  # see measure_memory
        grown = pss_kib(ours.pids) - idle
    finally:
        bench.close()
    base = {key: statistics.median(getattr(peers[1], key)) for key in ("cpu_us", "stream")}
    rows = []
    for peer in peers:
        cpu_us, stream = statistics.median(peer.cpu_us), statistics.median(peer.stream)
        rows.append([peer.name + " pair", "%.1f" % cpu_us, "%.2f" % (cpu_us / base["cpu_us"]), "%.0f" % statistics.median(peer.rate),
                     "%.0f" % stream, "%.2f" % (stream / base["stream"]), "%.0f" % statistics.median(peer.growth)])
    table(["Proxied gRPC, %d B each way, 8 connections of 4 streams" % BODY, "CPU of both, µs/call", "x nghttpx", "calls/s at most",
           "1 GiB there and back, MiB/s", "x nghttpx", "both grow by, KiB"], rows)
    table(["Streams", ""], [["1000 at once on one connection, calls/s", "%.0f" % at_once],
                            ["growth of the pair after %d more" % (CALLS + 20000), "%.0f KiB" % grown]])


PARTS = {"proxy": measure_proxy, "memory": measure_memory, "start": measure_start, "state": measure_state, "rpc": measure_rpc, "grpc": measure_grpc, "idle": measure_idle}


def describe():
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    nginx = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, text=True).stderr.strip().split(": ")[-1]
    print("Measured %s on %d x %s, Linux %s. %s; %s; %s; %s." % (
        datetime.date.today(), os.cpu_count(), cpu, platform.release(), Outrigger.version(), Nghttpx.version(),
        Haproxy.version(), nginx), flush=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("parts", nargs="*", metavar="PART", help="of: %s; all when none is given" % ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=int, default=30)
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error("no part %s" % name)
    describe()
    print()
    for name in options.parts or PARTS:
        PARTS[name](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
