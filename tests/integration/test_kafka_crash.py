"""Kafka under SIGKILL: publisher, subscriber, app and broker die, and the sidecars' connections to the broker are
reset, at seeded moments while numbered messages flow.

The app is a process of its own (crash_app.py), and what it wrote down is what counts. Nothing whose publish was
answered with 204 may be lost; what comes twice is counted and printed. Long form, which has more faults, too:
OUTRIGGER_CRASH_MESSAGES=50000 OUTRIGGER_SEED=7 python3 -m unittest test_kafka_crash (run.py ends a test after 120 s)."""
import os
import random
import threading

from crash_app import CrashApp
from harness import Case, wait_for
from kafka_server import KafkaServer

WAIT_S = 90  # only ends a hopeless wait
MESSAGES = int(os.environ.get("OUTRIGGER_CRASH_MESSAGES", "1500"))
PUBLISHERS = 6
# a killed broker may register anew only when its session has ended, else after 9 s
QUICK = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}


class Crash(Case):
    def setUp(self):
        super().setUp()
        self.server = KafkaServer(is_relayed=True, options=QUICK)
        self.addCleanup(self.server.close)
        self.lock, self.next, self.acknowledged, self.cut = threading.Lock(), 0, set(), 0

    def publish_all(self):
        """Each number until its publish is answered well, as a client that wants it out would."""
        while True:
            with self.lock:
                n, self.next = self.next, self.next + 1
            if n >= MESSAGES:
                return
            target = "/v1.0/publish/ps/crash?metadata.partitionNumber=%d" % (n % 3)
            wait_for("a publish", lambda: self.publisher.call_json("POST", target, n, timeout_s=40).status == 204, WAIT_S)
            with self.lock:
                self.acknowledged.add(n)

    def restart(self, sidecar):
        sidecar.kill()
        sidecar.launch()

    def restart_broker(self):
        self.server.kill()
        self.server.start()

    def cut_connections(self):
        """All there are, and not none because they are just being made anew."""
        self.cut += wait_for("connections", self.server.relay.cut, WAIT_S)

    def test_nothing_that_was_acknowledged_is_lost(self):
        seed = int(os.environ.get("OUTRIGGER_SEED", "0")) or random.randrange(1, 1 << 30)
        rand = random.Random(seed)
        resources = {"ps.yaml": self.server.component(sessionTimeout="2s", heartbeatInterval="500ms")}
        app = CrashApp(self, "ps", "crash")
        self.publisher = self.sidecar("publisher", resources=resources)
        subscriber = self.sidecar("subscriber", app, resources=resources)
        threads = [threading.Thread(target=self.publish_all, daemon=True) for _ in range(PUBLISHERS)]
        for thread in threads:
            thread.start()
        faults = [("subscriber", lambda: self.restart(subscriber)), ("app", app.restart), ("cut", self.cut_connections),
                  ("publisher", lambda: self.restart(self.publisher)), ("broker", self.restart_broker),
                  ("subscriber", lambda: self.restart(subscriber)), ("app", app.restart)]
        faults *= max(1, MESSAGES // 2500)
        rand.shuffle(faults)
        print("     seed %d: %s" % (seed, " ".join(n for n, _ in faults)), flush=True)
        for i, (name, fault) in enumerate(faults):
            at = int(MESSAGES * (i + rand.random()) / len(faults))
            wait_for("message %d" % at, lambda: len(self.acknowledged) >= at, WAIT_S)
            fault()
        for thread in threads:
            thread.join(WAIT_S)
        self.assertEqual(len(self.acknowledged), MESSAGES)
        self.assertEqual(app.lost(self.acknowledged, WAIT_S), [])
        print("     seed %d: %d messages, 0 lost, %d came again; %d faults, %d connections cut" % (
            seed, MESSAGES, app.twice(), len(faults), self.cut), flush=True)
