"""Kafka under SIGKILL: publisher, subscriber, app and broker die at seeded moments while numbered messages flow.

Nothing whose publish was answered with 204 may be lost; what comes twice is counted and printed. Long form:
OUTRIGGER_CRASH_MESSAGES=50000 OUTRIGGER_SEED=7 tests/integration/run.py test_kafka_crash (raise TEST_S in run.py)."""
import collections
import os
import random
import threading
import time

from harness import Case, Reply, wait_for
from kafka_server import KafkaServer

WAIT_S = 90  # only ends a hopeless wait
MESSAGES = int(os.environ.get("OUTRIGGER_CRASH_MESSAGES", "1500"))
PUBLISHERS = 6


class Crash(Case):
    def setUp(self):
        super().setUp()
        self.server = KafkaServer()
        self.addCleanup(self.server.close)
        self.seen, self.lock, self.next = collections.Counter(), threading.Lock(), 0
        self.acknowledged, self.is_failed = set(), []

    def handle(self, request):
        data = request.json.get("data")
        with self.lock:
            self.seen[data] += 1
        return Reply(200, b"")

    def publish_all(self):
        """Each number until its publish is answered well, as a client that wants it out would."""
        while True:
            with self.lock:
                n, self.next = self.next, self.next + 1
            if n >= MESSAGES:
                return
            while n not in self.acknowledged:
                try:
                    target = "/v1.0/publish/ps/crash?metadata.partitionNumber=%d" % (n % 3)
                    if self.publisher.call_json("POST", target, n, timeout_s=40).status == 204:
                        with self.lock:
                            self.acknowledged.add(n)
                        continue
                except (OSError, EOFError, AssertionError):
                    pass
                time.sleep(0.02)  # it is being restarted

    def restart(self, sidecar):
        sidecar.kill()
        sidecar.launch()

    def restart_broker(self):
        self.server.kill()
        self.server.start()

    def bounce_app(self):
        self.app_.down()
        self.app_.up()

    def test_nothing_that_was_acknowledged_is_lost(self):
        seed = int(os.environ.get("OUTRIGGER_SEED", "0")) or random.randrange(1, 1 << 30)
        rand = random.Random(seed)
        resources = {"ps.yaml": self.server.component(sessionTimeout="2s", heartbeatInterval="500ms")}
        self.app_ = self.app(self.handle, subscriptions=[{"pubsubname": "ps", "topic": "crash", "route": "/e"}])
        self.publisher = self.sidecar("publisher", resources=resources)
        subscriber = self.sidecar("subscriber", self.app_, resources=resources)
        threads = [threading.Thread(target=self.publish_all, daemon=True) for _ in range(PUBLISHERS)]
        for thread in threads:
            thread.start()
        faults = [("subscriber", lambda: self.restart(subscriber)), ("app", self.bounce_app),
                  ("publisher", lambda: self.restart(self.publisher)), ("broker", self.restart_broker),
                  ("subscriber", lambda: self.restart(subscriber)), ("app", self.bounce_app)]
        rand.shuffle(faults)
        for i, (name, fault) in enumerate(faults):
            at = int(MESSAGES * (i + rand.random()) / len(faults))
            wait_for("message %d" % at, lambda: len(self.acknowledged) >= at, WAIT_S)
            fault()
        for thread in threads:
            thread.join(WAIT_S)
        lost = lambda: [n for n in self.acknowledged if not self.seen[n]]
        wait_for("the rest", lambda: not lost() or None, WAIT_S)
        self.assertEqual((len(self.acknowledged), lost()), (MESSAGES, []))
        twice = sum(times - 1 for times in self.seen.values())
        print("     seed %d: %s; %d messages, 0 lost, %d came again" % (seed, " ".join(n for n, _ in faults), MESSAGES, twice), flush=True)
