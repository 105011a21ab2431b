"""CPU of a sidecar that has nothing to do."""
import time

from bench import Bench, answers, cpu_ns, sidecar, sqlite_resources, start_nginx, table, wait_for


def measure(options):
    bench = Bench()
    try:
        resources = sqlite_resources(bench)
        app = start_nginx(bench)
        callee, port = sidecar(bench, "callee", app, resources=resources)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        time.sleep(2)  # what its start does is over
        seconds = options.idle_seconds
        before, began = cpu_ns([callee.pid]), time.monotonic()
        time.sleep(seconds)  # what is measured is the time it uses in them
        used = (cpu_ns([callee.pid]) - before) / 1e9 / (time.monotonic() - began) * 1000
    finally:
        bench.close()
    table(["Idle CPU of a sidecar with its app, SQLite state store and pub/sub, %d s" % seconds, ""],
          [["", "%.3f milli-cores" % used]])
