"""Proxied gRPC, beside a pair of nghttpx."""
import concurrent.futures
import socket
import statistics
import time

from bench import (BODY, CALLS, Bench, answers, cpu_ns, family, free_port, h2load, pss_kib, sidecar, table, wait_for)


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


def measure(options):
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
        time.sleep(25)  # see part_memory.py
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
