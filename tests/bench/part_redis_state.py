"""State over HTTP on state.redis: CPU of a call, what the sidecar adds to a round trip, and a bulk get of 10,000 keys."""
import json
import os
import socket
import statistics
import time

from bench import Bench, Client, answers, component, cpu_ns, sidecar, table, wait_for, wrk
from part_redis import CONNECTIONS, start_redis
from part_state import SAVE

KEYS = 10000


def round_trips(send, count=3000):
    """Median time of one call after the other, in µs."""
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        send()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


def direct(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ask = b"*4\r\n$5\r\nHMGET\r\n$7\r\napp||k1\r\n$4\r\ndata\r\n$7\r\nversion\r\n"

    def send():
        sock.sendall(ask)
        sock.recv(4096)
    return send


def measure(options):
    bench = Bench()
    try:
        redis_port = start_redis(bench)
        resource = bench.file("resources/st.yaml", component("st", "state.redis", {"redisHost": "127.0.0.1:%d" % redis_port}))
        save = bench.file("save.lua", SAVE % 1000)
        process, port = sidecar(bench, "app", resources=os.path.dirname(resource), env={"OUTRIGGER_LOOPS": "1"})
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        url = "http://127.0.0.1:%d" % port
        wrk(url + "/v1.0/state/st", 1, script=save)
        kinds = {"bare answer (GET /v1.0/healthz)": (url + "/v1.0/healthz", None), "get, state.redis": (url + "/v1.0/state/st/k1", None),
                 "save, state.redis": (url + "/v1.0/state/st", save)}
        cpu, rates, through, straight, bulk = {n: [] for n in kinds}, {n: [] for n in kinds}, [], [], []
        keys = ["bulk%d" % n for n in range(KEYS)]
        headers = [("Content-Type", "application/json")]
        with Client(port) as client:
            client.call("POST", "/v1.0/state/st", headers, json.dumps([{"key": k, "value": {"n": k}} for k in keys]).encode())
            body = json.dumps({"keys": keys}).encode()
            for _ in range(options.rounds):
                for name, (target, script) in kinds.items():
                    before = cpu_ns([process.pid])
                    requests, rate = wrk(target, 2, connections=CONNECTIONS, script=script)
                    cpu[name].append((cpu_ns([process.pid]) - before) / requests / 1000)
                    rates[name].append(rate)
                through.append(round_trips(lambda: client.call("GET", "/v1.0/state/st/k1")))
                straight.append(round_trips(direct(redis_port)))
                bare = round_trips(lambda: client.call("GET", "/v1.0/healthz"))
                began = time.perf_counter_ns()
                client.call("POST", "/v1.0/state/st/bulk", headers, body)
                bulk.append((time.perf_counter_ns() - began) / 1e6)
    finally:
        bench.close()
    table(["State over HTTP, state.redis", "CPU, µs/request", "requests/s"],
          [[name, "%.1f" % statistics.median(cpu[name]), "%.0f" % statistics.median(rates[name])] for name in kinds])
    table(["One get after the other, state.redis", "p50, µs"],
          [["straight to redis-server", "%.0f" % statistics.median(straight)], ["bare answer of the sidecar", "%.0f" % bare],
           ["through the sidecar", "%.0f" % statistics.median(through)]])
    table(["Bulk get of %d keys, state.redis" % KEYS, "ms"], [["median of %d" % len(bulk), "%.1f" % statistics.median(bulk)]])
