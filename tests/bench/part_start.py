"""From exec to the first healthy answer."""
import contextlib
import statistics
import time

from bench import Bench, call, sidecar, sqlite_resources, table


def measure(options):
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
