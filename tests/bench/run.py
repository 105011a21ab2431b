"""The figures of README as markdown (called by tests/bench/run). A part is a file part_NAME.py with measure(options)."""
import argparse
import datetime
import glob
import importlib
import os
import platform
import subprocess
import sys

from bench import HERE, Haproxy, Nghttpx, Outrigger

ORDER = ["proxy", "memory", "start", "state", "rpc", "grpc", "idle", "mtls", "certs"]  # the others follow by name
PARTS = sorted((os.path.basename(path)[5:-3] for path in glob.glob(os.path.join(HERE, "part_*.py"))),
               key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def describe():
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    nginx = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, text=True).stderr.strip().split(": ")[-1]
    print("Measured %s on %d x %s, Linux %s. %s; %s; %s; %s." % (
        datetime.date.today(), os.cpu_count(), cpu, platform.release(), Outrigger.version(), Nghttpx.version(),
        Haproxy.version(), nginx), flush=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("parts", nargs="*", metavar="PART", help="of: %s; all when none is given" % ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=int, default=30)
    parser.add_argument("--certs-seconds", type=int, default=180)
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error("no part %s" % name)
    describe()
    print()
    for name in options.parts or PARTS:
        importlib.import_module("part_" + name).measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
