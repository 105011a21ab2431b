"""pubsub.kafka and bindings.kafka on a real Kafka; kcat reads what we wrote and writes what we read."""
import collections
import threading

from harness import Case, Reply, tag, wait_for
from kafka_server import KafkaServer, needs_kcat

WAIT_S = 60  # only ends a hopeless wait


class Seen:
    """An app that keeps the events of each path; answer(event, times) may say something else than 200."""

    def __init__(self, case, *topics, answer=None):
        self.events, self.counts, self.lock, self.answer = [], collections.Counter(), threading.Lock(), answer
        self.app = case.app(self.handle, subscriptions=[{"pubsubname": "ps", "route": "/" + t["topic"], **t} for t in topics])

    def handle(self, request):
        event = request.json
        with self.lock:
            self.events.append((request, event))
            self.counts[str(event.get("data"))] += 1
            times = self.counts[str(event.get("data"))]
        return (self.answer(event, times) if self.answer else None) or Reply(200, b"")

    def data(self):
        with self.lock:
            return [event.get("data") for _, event in self.events]

    def wait(self, *values):
        wait_for("events %r" % (values,), lambda: all(v in self.data() for v in values), WAIT_S)


class Kafka(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = KafkaServer()
        cls.addClassCleanup(cls.server.close)

    def subscriber(self, seen, app_id="app", **metadata):
        return self.sidecar(app_id, seen.app, resources={"ps.yaml": self.server.component(**metadata)})


class PubSub(Kafka):
    @tag("debug")
    def test_what_is_published_arrives_and_is_committed(self):
        seen = Seen(self, {"topic": "first"})
        a = self.subscriber(seen)
        values = [{"n": n} for n in range(50)]
        for value in values:
            answer = a.publish("ps", "first", value)
            self.assertEqual(answer.status, 204, answer.body)
        seen.wait(*values)
        self.assertEqual(a.stop(), 0)
        again = Seen(self, {"topic": "first"})
        b = self.subscriber(again)
        self.assertEqual(b.publish("ps", "first", {"n": "last"}).status, 204)
        again.wait({"n": "last"})
        self.assertEqual(again.data(), [{"n": "last"}])
