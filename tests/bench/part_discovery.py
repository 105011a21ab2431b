"""How soon an instance that has come is called, how many calls one that was killed costs, by the registry in a file."""
import os
import statistics
import time

from bench import answers, call, free_port, sidecar, table, wait_for
from fleet import Load, Ours, Scene, warm

ROUNDS = 8


def measure(_):
    came, killed = [], []
    with Scene(4) as (bench, fleet):
        spare = fleet.ports.pop()
        peer = Ours(bench, fleet)
        env = {"OUTRIGGER_LOOPS": "2", "OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-outrigger")}
        warm(peer, fleet)
        load = Load(peer, 4, verb="POST")
        try:
            for _ in range(ROUNDS):
                call(spare, "GET", "/_reset")
                internal, failed = free_port(), load.failed
                process, http = sidecar(bench, "callee", spare, env=env, internal_port=internal)
                wait_for("the new one", answers(http, "/v1.0/healthz", 204))
                ready = time.monotonic()
                wait_for("a call", lambda: call(spare, "GET", "/_stats").json["requests"])
                came.append((time.monotonic() - ready) * 1000)
                process.kill()
                process.wait()
                bench.processes.remove(process)
                time.sleep(1)  # what it costs is counted within it
                killed.append(load.failed - failed)
        finally:
            load.stop()
    table(["Discovery, %d calls by 4 clients, POST, an instance comes and is killed %d times" % (load.total, ROUNDS), ""],
          [["first call of it after its sidecar says that it is ready, median, worst",
            "%.0f ms, %.0f ms" % (statistics.median(came), max(came))],
           ["calls that failed for each that was killed with calls in hand, worst", "%d" % max(killed)]])
