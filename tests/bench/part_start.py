"""From exec to the first healthy answer."""
import statistics
import time

from bench import Bench, answers, sidecar, sqlite_resources, table, wait_for


def measure(options):
    bench, times = Bench(), []
    try:
        resources = sqlite_resources(bench)
        for _ in range(25):
            began = time.monotonic()
            process, port = sidecar(bench, "start", resources=resources)
            wait_for("the start", lambda: process.poll() is not None or answers(port, "/v1.0/healthz", 204)(), 20, 0.0002)
            if process.poll() is not None:
                raise RuntimeError("no start: " + bench.log("start.log"))
            times.append((time.monotonic() - began) * 1000)
            bench.stop(process)
    finally:
        bench.close()
    table(["Start to healthz 204, SQLite state store and pub/sub", "ms"],
          [["median of %d" % len(times), "%.1f" % statistics.median(times)], ["worst", "%.1f" % max(times)]])
