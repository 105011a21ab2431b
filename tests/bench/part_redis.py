"""Redis: CPU in the sidecar for a publish and a binding's get over HTTP at saturation."""
import os
import socket
import statistics

from bench import Bench, answers, component, cpu_ns, free_port, sidecar, table, wait_for, wrk

CONNECTIONS = 64
SCRIPT = """
wrk.method, wrk.body = "POST", '%s'
wrk.headers["Content-Type"] = "application/json"
"""


def ask(port, *args):
    """A command as a text would be, its first reply line."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(" ".join(args).encode() + b"\r\n")
        return connection.makefile("rb").readline()


def start_redis(bench):
    port = free_port()
    bench.start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", bench.dir,
                log="redis.log")
    wait_for("redis-server", lambda: ask(port, "PING").startswith(b"+PONG"))
    return port


def measure(options):
    bench = Bench()
    try:
        redis = start_redis(bench)
        host = {"redisHost": "127.0.0.1:%d" % redis}
        path = bench.file("r/ps.yaml", component("ps", "pubsub.redis", {**host, "maxLenApprox": "1000"}))
        bench.file("r/b.yaml", component("b", "bindings.redis", host))
        bench.file("r/pm.yaml", component("pm", "pubsub.in-memory"))
        process, port = sidecar(bench, "redis", resources=os.path.dirname(path), env={"OUTRIGGER_LOOPS": "1"})
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        url = "http://127.0.0.1:%d/v1.0/" % port
        kinds = {"bare answer (GET /v1.0/healthz)": (url + "healthz", None)}
        publish = bench.file("publish.lua", SCRIPT % '{"n":1}')
        kinds["publish, in-memory"] = (url + "publish/pm/t", publish)
        kinds["publish, pubsub.redis"] = (url + "publish/ps/t", publish)
        kinds["get, bindings.redis"] = (url + "bindings/b", bench.file("get.lua", SCRIPT % '{"operation":"get","metadata":{"key":"k"}}'))
        cpu = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, (target, script) in kinds.items():
                before = cpu_ns([process.pid])
                requests, _ = wrk(target, 2, connections=CONNECTIONS, script=script)
                cpu[name].append((cpu_ns([process.pid]) - before) / requests / 1000)
        medians = {name: statistics.median(values) for name, values in cpu.items()}
    finally:
        bench.close()
    bare = next(iter(medians.values()))
    table(["Redis over HTTP, one loop, %d connections" % CONNECTIONS, "CPU, µs/request", "x bare"],
          [[name, "%.1f" % value, "%.2f" % (value / bare)] for name, value in medians.items()])
