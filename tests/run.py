"""Builds and runs the parts of the test suite and adds up what they say (called by tests/run).

A part that cannot run on this machine is skipped by name; a part that breaks counts as one failure."""
import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
DIRECTORIES = {"release": "build", "debug": "build-debug", "tsan": "build-tsan"}
FLAGS = {"release": ["-DOUTR_TESTS=OFF"], "debug": ["-DOUTR_TESTS=ON"], "tsan": ["-DOUTR_TESTS=ON"]}
SUPPRESSIONS = os.path.join(HERE, "suppressions")
JOBS = str(os.cpu_count() or 2)


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def fail(self, name, text=""):
        self.failed += 1
        self.failures.append((name, text))


def say(text):
    print(text, flush=True)


def environment():
    """Sanitizers stop at the first finding and tell leaks; suppressions name other people's libraries only."""
    env = dict(os.environ)
    env["ASAN_OPTIONS"] = "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
    env["LSAN_OPTIONS"] = "suppressions=%s/lsan.txt:print_suppressions=0" % SUPPRESSIONS
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
    env["TSAN_OPTIONS"] = "suppressions=%s/tsan.txt:halt_on_error=1:second_deadlock_stack=1" % SUPPRESSIONS
    return env


built = {}


def build(preset, tally):
    """Configures and builds once; false, with its output as a failure, when that does not work."""
    if preset in built:
        return built[preset]
    began = time.monotonic()
    launcher = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    steps = [["cmake", "--preset", preset, *FLAGS[preset], *launcher],
             ["cmake", "--build", "--preset", preset, "-j", JOBS, "--", "-k", "0"]]
    built[preset] = True
    for step in steps:
        done = subprocess.run(step, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            lines = [l for l in done.stdout.splitlines() if re.search(r"error|FAILED|warning:|undefined", l)]
            tally.fail("build " + preset, "\n".join((lines or done.stdout.splitlines())[-40:]))
            built[preset] = False
            break
        if re.search(r"\bwarning:", done.stdout):
            tally.fail("build %s without warnings" % preset,
                       "\n".join(l for l in done.stdout.splitlines() if "warning:" in l))
    say("built %s in %.0f s" % (preset, time.monotonic() - began))
    return built[preset]


def ctest(preset, label, tally):
    if not build(preset, tally):
        return
    directory = os.path.join(TOP, DIRECTORIES[preset])
    with tempfile.TemporaryDirectory() as scratch:
        report = os.path.join(scratch, "report.xml")
        command = ["ctest", "--test-dir", directory, "-L", label, "-LE", "slow", "-j", JOBS, "--output-junit", report,
                   "--test-output-size-passed", "1000000", "--test-output-size-failed", "1000000", "--no-tests=ignore"]
        if preset == "tsan" and shutil.which("setarch"):  # it cannot live with much address randomisation
            command = ["setarch", platform.machine(), "-R", *command]
        done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace")
        if not os.path.exists(report):
            if done.returncode != 0:
                tally.fail("ctest %s %s" % (preset, label), done.stdout[-4000:])
            return
        for case in xml.parse(report).getroot().iter("testcase"):
            count_case(case, preset, tally)


def count_case(case, preset, tally):
    """One program; the tests in it are counted when it is a cmocka one."""
    name = "%s (%s)" % (case.get("name"), preset)
    output = case.findtext("system-out") or ""
    inner = re.search(r"\[  PASSED  \] (\d+) test\(s\)", output)
    if case.get("status") == "run":
        tally.passed += int(inner[1]) if inner else 1
        tally.skipped += len(re.findall(r"^\[  SKIPPED \] \S", output, re.M))
    elif case.get("status") in ("notrun", "disabled"):
        tally.skipped += 1
        say("skipped: %s" % name)
    else:
        failed = sorted(set(re.findall(r"^\[  FAILED  \] (\w+)$", output, re.M)))
        tally.passed += int(inner[1]) if inner else 0
        for one in failed[:-1]:
            tally.fail("%s: %s" % (name, one))
        tally.fail("%s: %s" % (name, failed[-1]) if failed else name, output[-6000:] or case.get("status"))


def python_part(command, name, tally, env=None):
    """A runner of ours: prints FAIL and SKIP lines and ends with 'N passed, N failed, N skipped'."""
    done = subprocess.Popen(command, cwd=TOP, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            errors="replace")
    last, failures = "", []
    for line in done.stdout:
        last = line
        if line.startswith("FAIL "):
            failures.append([line[5:].rstrip()])
        elif failures and line.startswith("     "):
            failures[-1].append(line.rstrip())
        if not re.match(r"\d+ passed, \d+ failed", line):
            sys.stdout.write("  " + line)
            sys.stdout.flush()
    done.wait()
    counts = re.match(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
    if not counts:
        tally.fail(name, "ended with exit code %d and no count" % done.returncode)
        return
    passed, failed, skipped = map(int, counts.groups())
    tally.passed += passed
    tally.skipped += skipped
    for failure in failures[:failed]:
        tally.fail("%s: %s" % (name, failure[0]), "\n".join(failure[-12:]))
    if failed > len(failures):
        tally.failed += failed - len(failures)
        tally.failures.append(("%s: %d more" % (name, failed - len(failures)), ""))
    elif not failed and done.returncode != 0:
        tally.fail(name, "ended with exit code %d" % done.returncode)


def binaries(preset):
    return os.path.join(TOP, DIRECTORIES[preset], "bin")


def known_threads(env):
    """Threads that librdkafka makes by C11's names are shown to the thread sanitizer by those it knows."""
    shim = os.path.join(TOP, DIRECTORIES["tsan"], "tsan_threads.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", shim, os.path.join(HERE, "integration", "tsan_threads.c")],
                   check=True)
    env["LD_PRELOAD"] = shim
    return ["setarch", platform.machine(), "-R"] if shutil.which("setarch") else []


def integration(preset, tally, arguments):
    if not build(preset, tally):
        return
    env = environment()
    env["OUTRIGGER_BIN"] = binaries(preset)
    env["OUTRIGGER_BUILD"] = preset
    before = known_threads(env) if preset == "tsan" else []
    python_part([*before, sys.executable, os.path.join(HERE, "integration", "run.py"), *arguments], "integration (%s)" % preset,
                tally, env)


def golden(tally):
    if not build("release", tally):
        return
    env = environment()
    env["OUTRIGGER_BIN"] = binaries("release")
    python_part([sys.executable, os.path.join(HERE, "conformance", "golden.py")], "golden", tally, env)


def internal(tally):
    if not build("debug", tally):
        return
    env = environment()
    env["OUTRIGGER_BIN"] = binaries("debug")
    env["OUTRIGGER_BUILD"] = "debug"
    python_part([sys.executable, os.path.join(HERE, "conformance", "internal.py")], "internal", tally, env)


def real_parts(path, name, preset="release", flags=()):
    """Official SDKs and gRPC's own cases: what they need is installed by their runners."""
    def part(tally):
        if not build(preset, tally):
            return
        env = environment()
        env["OUTRIGGER_BIN"] = binaries(preset)
        env["OUTRIGGER_BUILD"] = preset
        python_part([sys.executable, os.path.join(HERE, *path), *flags], "%s (%s)" % (name, preset), tally, env)
    return part


def quickstart(tally):
    """In a directory of its own it would build twice; here it finds the release build."""
    if not build("release", tally):
        return
    done = subprocess.run([os.path.join(TOP, "samples", "quickstart", "run")], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode == 0 and done.stdout.rstrip().endswith("quickstart: ok"):
        tally.passed += 1
    else:
        tally.fail("quickstart", done.stdout[-4000:])


PARTS = {
    "lint": ("rules of the source text", lambda t: ctest("debug", "lint", t)),
    "unit": ("unit tests, debug build with address and undefined-behaviour sanitizers", lambda t: ctest("debug", "unit", t)),
    "sim": ("simulations under seeded faults, debug build", lambda t: ctest("debug", "sim", t)),
    "fuzz": ("fuzz corpora replayed, debug build", lambda t: ctest("debug", "fuzz", t)),
    "tsan": ("unit tests and simulations under the thread sanitizer", lambda t: ctest("tsan", "unit|sim", t)),
    "quickstart": ("the quickstart sample", quickstart),
    "integration": ("real processes, release build", lambda t: integration("release", t, [])),
    "integration-debug": ("a subset of them on the debug build", lambda t: integration("debug", t, ["--tag", "debug"])),
    "integration-tsan": ("a subset of them under the thread sanitizer", lambda t: integration("tsan", t, ["--tag", "tsan"])),
    "golden": ("recorded answers of the reference", golden),
    "internal": ("recorded calls between sidecars, debug build", internal),
    "interop": ("gRPC's own interoperability cases through proxying sidecars", real_parts(["interop", "run.py"], "interop")),
    "sdk": ("official SDKs, unmodified, from their registries", real_parts(["integration", "sdk", "run.py"], "sdk")),
    "sdk-redis": ("the same with events on a redis-server", real_parts(["integration", "sdk", "run.py"], "sdk-redis", flags=["--redis"])),
    "sdk-kafka": ("the same with events on a Kafka", real_parts(["integration", "sdk", "run.py"], "sdk-kafka", flags=["--kafka"])),
    "interop-debug": ("the same cases on the debug build", real_parts(["interop", "run.py"], "interop", "debug")),
    "sdk-debug": ("the same SDKs on the debug build", real_parts(["integration", "sdk", "run.py"], "sdk", "debug")),
}


def telling(text, most=12):
    """The lines that say why, and the one before the first; else the last ones."""
    lines = text.rstrip().splitlines()
    at = [i for i, line in enumerate(lines) if re.search(r"\[  ERROR|\[   LINE|ERROR: |runtime error|Error\b|WARNING: Thread", line)]
    chosen = sorted(set(at) | {max(at[0] - 1, 0)}) if at else range(max(len(lines) - most, 0), len(lines))
    return [lines[i] for i in list(chosen)[:most]]


def main():
    parser = argparse.ArgumentParser(prog="tests/run", description="Parts, in the order in which they run:\n" + "\n".join(
        "  %-18s %s" % (name, part[0]) for name, part in PARTS.items()), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, when none is given")
    chosen = parser.parse_args().parts
    for name in chosen:
        if name not in PARTS:
            parser.error("no part %s" % name)
    tally = Tally()
    for name in chosen or PARTS:
        began, before = time.monotonic(), (tally.passed, tally.failed, tally.skipped)
        say("--- %s" % name)
        shown = len(tally.failures)
        PARTS[name][1](tally)
        for title, text in tally.failures[shown:]:
            say("FAILED %s" % title)
            if text:
                say("\n".join("    " + line for line in text.rstrip().splitlines()))
        say("    %d passed, %d failed, %d skipped in %.0f s" % (
            tally.passed - before[0], tally.failed - before[1], tally.skipped - before[2], time.monotonic() - began))
    if tally.failures:
        say("\nFailed:")
        for title, text in tally.failures:  # once more at the end, which is what is looked at first
            say("  " + title)
            for line in telling(text):
                say("      " + line)
    say("%d passed, %d failed, %d skipped" % (tally.passed, tally.failed, tally.skipped))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
