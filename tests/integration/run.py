"""Runs tests/integration/test_*.py: one process per file, four at a time (they mostly wait); a test has 120 s.

  run.py [--tag NAME] [-k TEXT] [-j N] [FILE...]   ends with "N passed, N failed, N skipped" """
import argparse
import concurrent.futures
import glob
import importlib
import os
import re
import signal
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TEST_S = 120


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed, self.began = 0, 0.0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        signal.alarm(TEST_S)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)

    def name(self, test):
        return test.id() if hasattr(test, "id") else str(test)

    def addSuccess(self, test):
        self.passed += 1
        print("ok   %s (%.1f s)" % (self.name(test), time.monotonic() - self.began), flush=True)

    def report(self, test, error):
        text = self._exc_info_to_string(error, test).rstrip()
        print("FAIL %s (%.1f s)\n%s" % (self.name(test), time.monotonic() - self.began,
                                       "\n".join("     " + l for l in text.splitlines())), flush=True)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.report(test, error)

    def addError(self, test, error):
        super().addError(test, error)
        self.report(test, error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.report(subtest, error)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print("SKIP %s: %s" % (self.name(test), reason), flush=True)


def on_alarm(*_):
    raise TimeoutError("the test took longer than %d s" % TEST_S)


def wanted(test, options):
    tags = getattr(getattr(test, test._testMethodName), "tags", ())
    return (not options.tag or options.tag in tags) and options.k in test.id()


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def run_module(name, options):
    """In this process."""
    signal.signal(signal.SIGALRM, on_alarm)
    sys.path.insert(0, HERE)
    module = importlib.import_module(name)
    suite = unittest.TestSuite(t for t in flatten(unittest.defaultTestLoader.loadTestsFromModule(module))
                               if wanted(t, options))
    result = Result()
    suite.run(result)
    print("%d passed, %d failed, %d skipped" % (result.passed, len(result.failures) + len(result.errors),
                                               len(result.skipped)), flush=True)
    os._exit(0)  # threads of apps do not hold it up


def run_process(name, options):
    command = [sys.executable, os.path.abspath(__file__), "--module", name, "-k", options.k, "--tag", options.tag]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tag", default="", help="only tests marked for this build")
    parser.add_argument("-k", default="", help="only tests whose name contains this")
    parser.add_argument("-j", type=int, default=4)
    parser.add_argument("-v", action="store_true", help="show what passed, too")
    parser.add_argument("--module", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if options.module:
        run_module(options.module, options)
    # the long ones first, so that none of them is left alone at the end
    files = options.files or sorted(glob.glob(os.path.join(HERE, "test_*.py")), key=os.path.getsize, reverse=True)
    names = [os.path.splitext(os.path.basename(f))[0] for f in files]
    sums = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        for name, output in zip(names, pool.map(lambda n: run_process(n, options), names)):
            counts = re.search(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", output, re.M)
            for line in output.splitlines():
                if not re.match(r"\d+ passed, ", line) and (options.v or not line.startswith("ok ")):
                    print(line, flush=True)
            if not counts:
                print("FAIL %s: ended without a count" % name)
                sums[1] += 1
                continue
            sums = [a + int(b) for a, b in zip(sums, counts.groups())]
    print("%d passed, %d failed, %d skipped" % tuple(sums), flush=True)
    return 1 if sums[1] else 0


if __name__ == "__main__":
    sys.exit(main())
