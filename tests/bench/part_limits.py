"""What rate limits, the adaptive limit and bulkheads cost a call: by a program of its own, as part_policy does."""
import json
import os
import subprocess

from bench import TOP, table


def measure(options):
    build = os.path.join(TOP, "build")
    done = subprocess.run(["cmake", "--build", build, "--target", "bench_limits"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    out = subprocess.check_output([os.path.join(build, "bench", "bench_limits")], text=True)
    table(["A call within limits", "CPU, µs"], [[row["name"], "%.3f" % row["us"]] for row in map(json.loads, out.splitlines())])
