"""pubsub.kafka and bindings.kafka on a real Kafka; kcat reads what we wrote and writes what we read."""
import collections
import json
import os
import shutil
import socket
import tempfile
import threading

from grpc_client import needs_grpc
from harness import BUILD, Case, Port, Reply, tag, wait_for
from kafka_server import PASSWORD, USER, KafkaServer, needs_kcat
from pki import openssl, read
from test_grpc_app import Stream

WAIT_S = 60  # only ends a hopeless wait


class Seen:
    """An app that keeps the events of its topics; answer(event, times) may say something else than 200."""

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

    def request(self, data):
        with self.lock:
            return next(request for request, event in self.events if event.get("data") == data)

    def wait(self, *values):
        wait_for("events %r" % (values[:5],), lambda: all(v in self.data() for v in values), WAIT_S)


class Kafka(Case):
    """One server for all tests of a class; each has topics of its own."""

    @classmethod
    def setUpClass(cls):
        cls.server = KafkaServer()
        cls.addClassCleanup(cls.server.close)

    def subscriber(self, seen, app_id="app", **metadata):
        return self.sidecar(app_id, seen.app, resources={"ps.yaml": self.server.component(**metadata)})

    def publish(self, sidecar, topic, *values, query=""):
        for value in values:
            answer = sidecar.call_json("POST", "/v1.0/publish/ps/%s%s" % (topic, query), value)
            self.assertEqual(answer.status, 204, answer.body)


class PubSub(Kafka):
    def test_the_tools_of_kafka_read_what_was_written_and_committed(self):
        seen = Seen(self, {"topic": "console"})
        a = self.subscriber(seen, "tools")
        for n in range(3):
            self.publish(a, "console", {"n": n}, query="?metadata.partitionKey=key-%d&metadata.color=blue" % n)
        self.publish(a, "console", {"raw": 1}, query="?metadata.rawPayload=true&metadata.partitionNumber=2")
        seen.wait(*({"n": n} for n in range(3)))
        records = self.server.console("console", 4)
        events = {key: (headers, json.loads(value)) for _, headers, key, value in records if key.startswith("key-")}
        self.assertEqual({key: event["data"] for key, (_, event) in events.items()}, {"key-%d" % n: {"n": n} for n in range(3)})
        for headers, event in events.values():
            self.assertIn("color:blue", headers.split(","))
            self.assertEqual((event["specversion"], event["topic"], event["pubsubname"]), ("1.0", "console", "ps"))
        self.assertEqual([(partition, json.loads(value)) for partition, _, key, value in records if key == "null"], [("Partition:2", {"raw": 1})])
        self.assertEqual(a.stop(), 0)
        self.assertGreaterEqual(sum(self.server.groups("tools")["console"].values()), 3)

    @tag("debug", "tsan")
    def test_what_is_published_arrives_and_is_committed(self):
        seen = Seen(self, {"topic": "first"})
        a = self.subscriber(seen, "committing")
        values = [{"n": n} for n in range(50)]
        self.publish(a, "first", *values)
        seen.wait(*values)
        self.assertEqual(a.stop(), 0)
        again = Seen(self, {"topic": "first"})
        b = self.subscriber(again, "committing")
        self.publish(b, "first", {"n": "last"})
        again.wait({"n": "last"})
        self.assertEqual(again.data(), [{"n": "last"}])

    @needs_kcat
    @tag("debug")
    def test_a_subscription_makes_its_topics(self):
        topics = ["made-%d" % i for i in range(3)]
        seen = Seen(self, *({"topic": topic} for topic in topics))
        a = self.subscriber(seen, "makes")
        wait_for("the topics", lambda: all('topic "%s" with 3 partitions' % t in self.server.kcat("-L") for t in topics), WAIT_S)
        for topic in topics:
            self.publish(a, topic, topic)
        seen.wait(*topics)

    @needs_kcat
    @tag("debug")
    def test_a_partition_keeps_its_order_whatever_is_refused(self):
        """Two keys, two partitions: each in order, also around what comes again; they do not wait for each other."""
        stuck = threading.Event()

        def answer(event, times):
            kind, n = event["data"]
            if kind == "slow" and n == 0:
                stuck.wait(WAIT_S)
            return Reply(500) if n % 5 == 3 and times < 3 else None
        seen = Seen(self, {"topic": "order"}, answer=answer)
        self.server.produce("order", json.dumps({"data": ["first", 0]}), partition=0)  # makes the topic
        a = self.subscriber(seen, "order")
        for n in range(20):
            self.publish(a, "order", ["slow", n], query="?metadata.partitionNumber=1")
            self.publish(a, "order", ["quick", n], query="?metadata.partitionNumber=2")
        seen.wait(["quick", 19])
        self.assertEqual([d for d in seen.data() if d and d[0] == "slow"], [["slow", 0]])
        stuck.set()
        seen.wait(["slow", 19])
        for kind in ("slow", "quick"):
            numbers = [d[1] for d in seen.data() if d and d[0] == kind]
            self.assertEqual(numbers, [n for n in range(20) for _ in range(3 if n % 5 == 3 else 1)])

    @needs_kcat
    @tag("debug")
    def test_records_as_others_read_and_write_them(self):
        seen = Seen(self, {"topic": "wire", "metadata": {"rawPayload": "false"}})
        a = self.subscriber(seen, "wire", excludeHeaderMetaRegex="^secret")
        self.publish(a, "wire", {"n": 1}, query="?metadata.partitionKey=k1&metadata.color=dark%20blue")
        self.publish(a, "wire", {"n": 2}, query="?metadata.__key=k1")
        seen.wait({"n": 1}, {"n": 2})
        one, two = sorted(self.server.records("wire"), key=lambda r: json.loads(r["payload"])["data"]["n"])
        self.assertEqual((one["key"], two["key"], one["partition"]), ("k1", "k1", two["partition"]))
        self.assertIn("color", one["headers"])
        self.assertEqual(one["headers"][one["headers"].index("color") + 1], "dark blue")
        self.assertEqual(json.loads(one["payload"])["topic"], "wire")
        request = seen.request({"n": 1})
        self.assertEqual([request.header(h) for h in ("color", "__key", "__partition", "__offset", "__topic")],
                         ["dark blue", "k1", str(one["partition"]), str(one["offset"]), "wire"])
        self.assertTrue(request.header("__timestamp").isdigit())
        event = json.dumps({"id": "x", "specversion": "1.0", "type": "t", "source": "kcat", "data": {"n": 3}})
        self.server.produce("wire", event, partition=2, key="k3", headers=[("secret-one", "s"), ("plain", "p"), ("__topic", "no")])
        seen.wait({"n": 3})
        request = seen.request({"n": 3})
        self.assertEqual([request.header(h) for h in ("plain", "__key", "__topic", "secret-one", "__partition")],
                         ["p", "k3", "wire", None, "2"])

    @tag("debug")
    def test_what_is_no_event_goes_to_the_dead_letters(self):
        seen = Seen(self, {"topic": "poison", "deadLetterTopic": "dead"}, {"topic": "dead", "metadata": {"rawPayload": "true"}})
        a = self.subscriber(seen, "poison")
        wait_for("both subscriptions", lambda: a.log().count('msg="subscribed"') == 2, WAIT_S)
        for body in (b"not json {", b"a\0b", b"x" * 900000):
            answer = a.call("POST", "/v1.0/publish/ps/poison?metadata.rawPayload=true", [("Content-Type", "text/plain")], body)
            self.assertEqual(answer.status, 204, answer.body)
        self.publish(a, "poison", {"n": 1})
        seen.wait({"n": 1})
        wait_for("three dead letters", lambda: len(seen.app.seen("/dead")) == 3, WAIT_S)

    def test_names_sizes_and_partitions_that_cannot_be(self):
        a = self.sidecar("bad", resources={"ps.yaml": self.server.component(maxMessageBytes="2000")})
        self.publish(a, "sizes", "x" * 1000)
        for target, body, text in (("sizes", "x" * 3000, "maxMessageBytes"), ("a%20b", "x", "a name in Kafka"),
                                   ("sizes?metadata.partitionNumber=x", "x", "partitionNumber"),
                                   ("sizes?metadata.partitionNumber=77", "x", "partition"),
                                   ("sizes?metadata.valueSchemaType=Avro", "x", "not supported")):
            answer = a.call_json("POST", "/v1.0/publish/ps/" + target, body)
            self.assertEqual(answer.status, 500, answer.body)
            self.assertIn(text, answer.body.decode())
        self.publish(a, "sizes", "y")

    @tag("debug")
    def test_a_member_that_joins_or_leaves_costs_no_message(self):
        for strategy in ("range", "sticky"):
            topic = "members-" + strategy
            settings = {"consumerGroupRebalanceStrategy": strategy, "heartbeatInterval": "300ms"}
            seen = [Seen(self, {"topic": topic}) for _ in range(2)]
            first = self.subscriber(seen[0], topic, **settings)
            self.publish(first, topic, *range(0, 30))
            second = self.subscriber(seen[1], topic, **settings)
            at = [30]

            def shared():
                self.publish(first, topic, at[0], query="?metadata.partitionNumber=%d" % (at[0] % 3))
                at[0] += 1
                return len(seen[1].data()) > 10
            wait_for("the second one to have its share", shared, WAIT_S)
            self.assertEqual(second.stop(), 0)
            self.publish(first, topic, *range(at[0], at[0] + 30))
            wait_for("all of them", lambda: set(seen[0].data()) | set(seen[1].data()) >= set(range(at[0] + 30)), WAIT_S)
            for one in seen:
                self.assert_order(one)
            again = [[n for n, times in collections.Counter(data).items() if times > 1]
                     for data in (seen[0].data(), seen[1].data(), seen[0].data() + seen[1].data())]
            if strategy == "range":  # what is in hand is waited for and committed
                self.assertEqual(again[2], [])
            else:  # a commit may be lost, then others see it again, and a member what it had in hand: one of each partition, each time
                self.assertLessEqual(max(len(again[0]), len(again[1])), 3 * 2)
            self.assertEqual(first.stop(), 0)

    def assert_order(self, seen):
        """Of each partition the messages came in order, but for those that came again."""
        with seen.lock:
            places = [(request.header("__partition"), int(request.header("__offset"))) for request, _ in seen.events]
        for partition in {p for p, _ in places}:
            offsets = list(dict.fromkeys(offset for p, offset in places if p == partition))
            self.assertEqual(offsets, sorted(offsets), "partition " + partition)

    @needs_kcat
    def test_an_app_that_hangs_costs_little_memory(self):
        held, size, count = threading.Event(), 1000, 100000
        event = json.dumps({"id": "x", "specversion": "1.0", "type": "t", "source": "s", "data": "x" * size})
        self.server.produce("hang", event, partition=0)
        seen = Seen(self, {"topic": "hang"}, answer=lambda event, times: held.wait(WAIT_S) and None)
        a = self.sidecar("hang", seen.app, is_ready=False, resources={"ps.yaml": self.server.component()})
        a.wait_ready()
        wait_for("one in hand", lambda: len(seen.data()) >= 1, WAIT_S)
        before = a.pss_kib()
        for partition in range(3):
            self.server.produce("hang", *[event] * (count // 3), partition=partition)
        wait_for("it to be at rest", lambda: self.is_at_rest(a), WAIT_S)
        self.assertLess(a.pss_kib() - before, 16 * 1024 if BUILD == "release" else 1 << 20)
        held.set()

    def is_at_rest(self, sidecar):
        before = sidecar.pss_kib()
        threading.Event().wait(0.5)
        return sidecar.pss_kib() - before < 64


    @needs_grpc
    @tag("debug")
    def test_8_a_stream_that_ends_gives_its_message_back_at_once(self):
        """Not when its session is over, and whoever comes next is no second consumer."""
        a = self.sidecar("streams", resources={"ps.yaml": self.server.component(sessionTimeout="300s")})
        self.publish(a, "streams", "x")
        for stream in Stream.ends(a, "ps", "streams"):
            self.assertEqual(stream.get()["data"], b'"x"')
        wait_for("no stream", lambda: not a.call("GET", "/v1.0/metadata").json.get("subscriptions"))


class Binding(Kafka):
    @tag("debug")
    def test_output_and_input(self):
        got, again = [], []

        def handler(request):
            if request.method == "OPTIONS":
                return Reply(200)
            again.append(request.body)
            if again.count(request.body) < 2:
                return Reply(500)
            got.append(request)
            return Reply(200)
        app = self.app(handler)
        resources = {"b.yaml": self.server.component("events", "bindings.kafka", topics="in, other", publishTopic="in",
                                                     direction="input, output")}
        a = self.sidecar("binding", app, resources=resources)
        for topic in (None, "other"):
            metadata = {"partitionKey": "k", **({"topic": topic} if topic else {})}
            answer = a.call_json("POST", "/v1.0/bindings/events", {"operation": "create", "data": {"to": topic}, "metadata": metadata})
            self.assertIn(answer.status, (200, 204), answer.body)
        wait_for("both events", lambda: len(got) == 2, WAIT_S)
        self.assertEqual(sorted((r.header("__topic"), r.header("__key"), r.json["to"]) for r in got if r.json["to"]) +
                         [(r.header("__topic"), r.json["to"]) for r in got if not r.json["to"]],
                         [("other", "k", "other"), ("in", None)])
        answer = a.call_json("POST", "/v1.0/bindings/events", {"operation": "get", "data": "x"})
        self.assertGreaterEqual(answer.status, 400)


def rsa(folder, name, ca=None):
    """(certificate file, key file); signed by ca, or by itself."""
    key, request, out = (os.path.join(folder, name + end) for end in (".key", ".csr", ".crt"))
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    if not ca:
        openssl("req", "-new", "-x509", "-key", key, "-subj", "/CN=" + name, "-days", "9", "-out", out)
        return out, key
    openssl("req", "-new", "-key", key, "-subj", "/CN=" + name, "-addext", "subjectAltName=IP:127.0.0.1", "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial", "-days", "9", "-copy_extensions",
            "copyall", "-out", out)
    return out, key


class Login(Case):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="outrigger-kafka-")
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.ca = rsa(folder, "authority")
        server, cls.client, cls.stranger = rsa(folder, "server", cls.ca), rsa(folder, "client", cls.ca), rsa(folder, "stranger")
        both = os.path.join(folder, "server.pem")
        with open(both, "w") as file:
            file.write(read(server[1]) + read(server[0]))
        cls.server = KafkaServer(tls=(both, cls.ca[0]))
        cls.addClassCleanup(cls.server.close)

    def try_(self, topic, listener="SASL", **metadata):
        seen = Seen(self, {"topic": topic})
        a = self.sidecar(topic, seen.app, resources={"ps.yaml": self.server.component(listener=listener, **metadata)})
        self.assertEqual(a.publish("ps", topic, {"n": 1}).status, 204)
        seen.wait({"n": 1})

    def test_passwords(self):
        for mechanism in ("PLAINTEXT", "SHA-256", "SHA-512"):
            self.try_(mechanism.lower(), authType="password", saslUsername=USER, saslPassword=PASSWORD, saslMechanism=mechanism,
                      disableTls="true")

    @tag("debug")
    def test_certificates(self):
        self.try_("mtls", "TLS", authType="mtls", caCert=self.ca[0], clientCert=read(self.client[0]), clientKey=self.client[1])
        self.try_("unverified", "TLS", authType="mtls", skipVerify="true", clientCert=self.client[0], clientKey=self.client[1])

    @tag("debug")
    def test_what_is_wrong_is_named_and_the_others_work(self):
        good = {"authType": "password", "saslUsername": USER, "saslPassword": PASSWORD, "disableTls": "true"}
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        away = Port()
        self.addCleanup(away.release)
        wrong = {
            "saslPassword": ("SASL", {**good, "saslPassword": "wrong"}),
            "caCert": ("TLS", {"authType": "mtls", "caCert": self.stranger[0], "clientCert": self.client[0],
                               "clientKey": self.client[1]}),
            "authType: oidc is not supported": ("SASL", {"authType": "oidc"}),
            "saslUsername: required": ("SASL", {"authType": "password"}),
            "clientKey: required": ("TLS", {"authType": "mtls", "clientCert": self.client[0]}),
            "schemaRegistryURL": ("PLAIN", {"schemaRegistryURL": "http://localhost:1"}),
            "useAvroJSON": ("PLAIN", {"useAvroJSON": "true"}),
            "version: not a version": ("PLAIN", {"version": "new"}),
            "excludeHeaderMetaRegex": ("PLAIN", {"excludeHeaderMetaRegex": "("}),
            "heartbeatInterval": ("PLAIN", {"heartbeatInterval": "never"}),
            "compression": ("PLAIN", {"compression": "best"}),
            "(brokers)": ("PLAIN", {"brokers": "127.0.0.1:%d" % away.number}),
            "brokers)": ("PLAIN", {"brokers": "127.0.0.1:%d" % silent.getsockname()[1]}),
        }
        resources = {}
        for i, (listener, metadata) in enumerate(wrong.values()):
            text = self.server.component("wrong%d" % i, listener=listener, **metadata)
            resources["wrong%d.yaml" % i] = text.replace("spec:", "spec:\n  ignoreErrors: true\n  initTimeout: 3s", 1)
        seen = Seen(self, {"topic": "good"})
        resources["ps.yaml"] = self.server.component(listener="SASL", **good)
        a = self.sidecar("wrong", seen.app, is_ready=False, resources=resources)
        wait_for("readiness", lambda: a.health() == 204, WAIT_S)
        self.assertEqual(a.publish("ps", "good", {"n": 1}).status, 204)
        seen.wait({"n": 1})
        for i, text in enumerate(wrong):
            lines = [line for line in a.log().splitlines() if "wrong%d" % i in line and "level=e" in line or
                     "wrong%d" % i in line and "level=warn" in line and "error=" in line]
            self.assertTrue(any(text in line for line in lines), (text, lines))
