"""What it costs to pick an instance, however many there are: by a program of its own."""
import json
import os
import subprocess

from bench import TOP, table


def measure(options):
    build = os.path.join(TOP, "build")
    done = subprocess.run(["cmake", "--build", build, "--target", "bench_pick"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    out = subprocess.check_output([os.path.join(build, "bench", "bench_pick")], text=True)
    table(["To pick, observe and release one of", "CPU, ns"], [[row["name"], "%.0f" % row["ns"]] for row in map(json.loads, out.splitlines())])
