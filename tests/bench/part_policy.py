"""What access policies, tokens and routes cost a call: by programs of their own, the difference is below the noise of a proxy's run."""
import json
import os
import subprocess

from bench import TOP, table


def rows(program):
    build = os.path.join(TOP, "build")
    done = subprocess.run(["cmake", "--build", build, "--target", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return [json.loads(line) for line in subprocess.check_output([os.path.join(build, "bench", program)], text=True).splitlines()]


def measure(options):
    table(["A judged call", "CPU, µs"], [[row["name"], "%.2f" % row["us"]] for row in rows("bench_judge")])
    table(["Where a call goes", "CPU, µs", "table made in, ms"],
          [[row["name"], "%.2f" % row["us"], "%.1f" % row["made_ms"]] for row in rows("bench_routes")])
