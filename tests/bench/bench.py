"""What the parts of the benchmark share: processes and what they use, loads, the pairs that are compared.

CPU is what the kernel charged to all threads of the proxies (schedstat) while the load ran; latency comes from
openload, which keeps a constant rate. Peers take turns in every round; medians are shown."""
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
os.environ.setdefault("OUTRIGGER_BIN", os.path.join(TOP, "build", "bin"))
from harness import BIN, Client, Port, TimedOut, call, component, put, wait_for  # noqa: E402

OPENLOAD = os.path.join(TOP, "build", "bench", "openload")
BODY = 1024
CONNECTIONS = 32
WRK_S = 4
RATE = 1000
RATE_S = 5
CALLS = 100000


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


def openload(port, path, rate=RATE, seconds=RATE_S, connections=CONNECTIONS, deadline_ms=0, headers=(), may_fail=False):
    out = subprocess.run([OPENLOAD, "127.0.0.1", str(port), path, str(rate), str(seconds), str(connections), str(deadline_ms),
                          *("%s: %s" % pair for pair in headers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if out.returncode != 0:
        raise RuntimeError("openload: " + out.stderr)
    result = json.loads(out.stdout)
    if may_fail:
        return result
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


def sidecar(bench, app_id, app_port=None, resources=None, env=None, flags=(), grpc_port=None, internal_port=None,
            metrics_port=None):
    """(process, its HTTP port)"""
    ports = {flag: free_port() for flag in ("dapr-http-port", "dapr-grpc-port", "dapr-internal-grpc-port", "metrics-port")}
    ports["dapr-grpc-port"] = grpc_port or ports["dapr-grpc-port"]
    ports["dapr-internal-grpc-port"] = internal_port or ports["dapr-internal-grpc-port"]
    ports["metrics-port"] = metrics_port or ports["metrics-port"]
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


def sqlite_resources(bench):
    os.makedirs(os.path.join(bench.dir, "resources"), exist_ok=True)
    bench.file("resources/st.yaml", component("st", "state.sqlite", {"connectionString": os.path.join(bench.dir, "state.db")}))
    bench.file("resources/ps.yaml", component("ps", "pubsub.sqlite", {"connectionString": os.path.join(bench.dir, "ps.db")}))
    return os.path.join(bench.dir, "resources")


def program(name):
    """What a program of tests/bench prints, a dict a line; it measures what is below the noise of a proxy's run."""
    build = os.path.join(TOP, "build")
    done = subprocess.run(["cmake", "--build", build, "--target", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return [json.loads(line) for line in subprocess.check_output([os.path.join(build, "bench", name)], text=True).splitlines()]


# ---------------------------------------------------------------- what is printed
def table(head, rows):
    print("\n| " + " | ".join(head) + " |")
    print("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)
