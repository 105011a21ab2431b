"""h2spec (github.com/summerwind/h2spec), all of its cases, against the HTTP port and the gRPC port.

Built once by Go into .cache; where that cannot be done the test is skipped. Many cases send a bad frame behind
a good request and must find its stream still open, so the app takes a moment to answer; what races all the
same is asked again. tests/conformance/h2spec.csv names the cases that test what RFC 9113 does not say."""
import csv
import os
import re
import shutil
import subprocess
import time
import unittest
import xml.etree.ElementTree as xml
from xml.sax.saxutils import escape

from harness import TOP, Case, Reply

DIRECTORY = os.path.join(TOP, ".cache", "h2spec")
BINARY = os.path.join(DIRECTORY, "h2spec")
CASES = 145
TRIES = 4
# The last versions that Go 1.19 builds.
MODULE = """module h2spec

go 1.19

require (
	github.com/fatih/color v1.13.0
	github.com/spf13/cobra v1.6.1
	github.com/summerwind/h2spec v2.2.1+incompatible
	golang.org/x/net v0.7.0
)
"""


def build():
    """None, or why there is no h2spec."""
    if os.access(BINARY, os.X_OK):
        return None
    if not shutil.which("go"):
        return "no Go"
    os.makedirs(DIRECTORY, exist_ok=True)
    with open(os.path.join(DIRECTORY, "go.mod"), "w") as file:
        file.write(MODULE)
    env = dict(os.environ, GOFLAGS="-mod=mod", CGO_ENABLED="0")
    done = subprocess.run(["go", "build", "-o", BINARY, "github.com/summerwind/h2spec/cmd/h2spec"], cwd=DIRECTORY, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    return None if done.returncode == 0 else "h2spec cannot be built: %s" % " ".join(done.stdout.split()[-20:])


def excused(port):
    with open(os.path.join(TOP, "tests", "conformance", "h2spec.csv"), newline="") as file:
        return {row["case"] for row in csv.DictReader(file) if row["port"] in (port, "both")}


def parsed(report):
    """The suites of a report of h2spec, which writes what it was told into <failure> and <error> unescaped."""
    with open(report, encoding="utf-8", errors="replace") as file:
        text = re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", file.read())
    text = re.sub(r"<(failure|error)>(.*?)</\1>", lambda found: "<%s>%s</%s>" % (found[1], escape(found[2]), found[1]), text,
                  flags=re.DOTALL)
    return xml.fromstring(text.encode()).iter("testsuite")


class H2spec(Case):
    def ask(self, port, path, sections=()):
        """{section/number: failure or None}, and how many were skipped."""
        report = self.path("report.xml")
        done = subprocess.run([BINARY, *sections, "-h", "127.0.0.1", "-p", str(port), "-P", path, "-o", "2", "-j", report],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        self.assertTrue(os.path.exists(report), done.stdout[-2000:])
        found, skipped = {}, set()
        for suite in parsed(report):
            for number, case in enumerate(suite.iter("testcase"), 1):
                name = "%s/%d" % (case.get("package"), number)
                failure = case.find("failure") if case.find("failure") is not None else case.find("error")
                found[name] = None if failure is None else "%s: %s" % (case.get("classname"), " ".join(failure.itertext()))
                if case.find("skipped") is not None:
                    skipped.add(name)
        return found, skipped

    def conform(self, name, port, path):
        found, skipped = self.ask(port, path)
        self.assertEqual(len(found), CASES, sorted(found))
        for _ in range(TRIES - 1):
            failed = [case for case, text in found.items() if text and case not in excused(name)]
            for case in failed:
                again, _ = self.ask(port, path, [case])
                found[case] = next(iter(again.values()), found[case])
        failed = {case: text for case, text in found.items() if text}
        print("h2spec, %s port: %d passed, %d failed, %d skipped by h2spec %s" % (
            name, CASES - len(failed) - len(skipped), len(failed), len(skipped), sorted(skipped) or ""), flush=True)
        self.assertEqual({case: text for case, text in failed.items() if case not in excused(name)}, {})

    def test_h2spec_on_both_ports(self):
        why = build()
        if why:
            raise unittest.SkipTest("h2spec: " + why)

        def handler(request):
            time.sleep(0.03)  # the next frame is on its way, and nothing tells which was the last: see above
            return Reply(200, b"answer " * 100)
        sidecar = self.sidecar("app", self.app(handler))
        self.conform("HTTP", sidecar.http, "/v1.0/invoke/app/method/echo")
        self.conform("gRPC", sidecar.ports["grpc"].number, "/dapr.proto.runtime.v1.Dapr/GetState")


if __name__ == "__main__":
    unittest.main()
