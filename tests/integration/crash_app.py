"""An app for crash runs: a process of its own that writes down each number it is told before it answers 200.

  crash_app.py PORT FILE SUBSCRIPTIONS   (JSON, for /dapr/subscribe)

The number is one write of one line to a file opened with O_APPEND, so SIGKILL leaves it there or not at all."""
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys

import harness


class CrashApp:
    """The test's side: starts it, kills it, counts what its file has. The port stays its own while it is down."""

    def __init__(self, case, pubsub, topic):
        self.hold = harness.Port()
        self.port, self.path = self.hold.number, case.path("numbers")
        self.argv = [sys.executable, os.path.abspath(__file__), str(self.port), self.path,
                     json.dumps([{"pubsubname": pubsub, "topic": topic, "route": "/event"}])]
        self.found, self.offset, self.process = collections.Counter(), 0, None
        case.addCleanup(self.close)  # after the sidecars' end
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL)
        harness.wait_for("the app", self.is_up)

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError("the app ended with %d" % self.process.returncode)
        return harness.call(self.port, "GET", "/dapr/subscribe").status == 200

    def restart(self):
        self.kill()
        self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process:
            self.kill()
        self.hold.release()

    def counts(self):
        """Number -> how often it came; reads what was added since the last time."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            added = file.read()
        self.offset += len(added)
        self.found.update(int(line) for line in added.splitlines())
        return self.found

    def missing(self, numbers):
        counts = self.counts()
        return [n for n in numbers if n not in counts]

    def lost(self, numbers, timeout_s):
        """Those that have not come by then."""
        with contextlib.suppress(harness.TimedOut):
            harness.wait_for("the rest", lambda: not self.missing(numbers), timeout_s)
        return self.missing(numbers)

    def twice(self):
        return sum(times - 1 for times in self.counts().values())


def main(port, path, subscriptions):
    numbers = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def handle(request):
        os.write(numbers, b"%d\n" % request.json["data"])
        return harness.Reply(200, b"")

    harness.App(handle, port=int(port), subscriptions=json.loads(subscriptions)).up()
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
