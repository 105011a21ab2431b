"""What access policies and tokens cost a call: by a program of its own, the difference is below the noise of a proxy's run."""
import json
import os
import subprocess

from bench import TOP, table


def measure(options):
    build = os.path.join(TOP, "build")
    done = subprocess.run(["cmake", "--build", build, "--target", "bench_judge"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    out = subprocess.check_output([os.path.join(build, "bench", "bench_judge")], text=True)
    table(["A judged call", "CPU, µs"], [[row["name"], "%.2f" % row["us"]] for row in map(json.loads, out.splitlines())])
