"""Apps that speak gRPC, made with grpcio: invocation, events, health, limits, and streams of clients."""
import json
import queue
import subprocess
import threading

from grpc_client import WHY_NOT, Client, needs_grpc
from harness import Case, Relay, component, tag, wait_for
from redis_server import RedisServer, needs_redis

if not WHY_NOT:
    import grpc

    from grpc_app import Gate, GrpcApp, Refusal

GRPC = ("--app-protocol", "grpc")


def hello(call):
    return {"data": {"value": b'{"hi":1}'}, "content_type": "application/json"}


def wants(*topics, **more):
    return lambda call: {"subscriptions": [{"pubsub_name": "ps", "topic": topic, **more} for topic in topics]}


class GrpcCase(Case):
    def grpc_app(self, handlers=None, is_up=True, **more):
        app = GrpcApp(handlers, **more)
        self.started.append(app)
        return app.up() if is_up else app

    def client(self, sidecar):
        client = Client(sidecar.grpc)
        self.addCleanup(client.close)
        return client


@needs_grpc
class Invocation(GrpcCase):
    @tag("debug", "tsan")
    def test_http_callers_reach_a_grpc_app(self):
        app = self.grpc_app({"OnInvoke": hello})
        a = self.sidecar("caller")
        b = self.sidecar("callee", app, flags=GRPC, env={"APP_API_TOKEN": "tok"})
        for sidecar in (a, b):  # over the mesh, and its own
            answer = sidecar.invoke("callee", "orders/7?x=1", "PUT", [("X-Own", "mine"), ("Content-Type", "text/plain")], b"words")
            self.assertEqual((answer.status, answer.json, answer.header("Content-Type")), (200, {"hi": 1}, "application/json"))
            for name, _ in answer.headers:
                self.assertFalse(name.lower().startswith(("outrigger-", "grpc-")), name)
            call = app.calls("OnInvoke")[-1]
            self.assertEqual(call.request, {"method": "orders/7", "data": {"value": b"words"}, "content_type": "text/plain",
                                            "http_extension": {"verb": "PUT", "querystring": "x=1"}})
            self.assertEqual(call.metadata["x-own"], "mine")
            self.assertEqual(call.metadata["dapr-api-token"], "tok")
            self.assertEqual(call.metadata.get("dapr-caller-app-id"), "caller" if sidecar is a else None)

    def test_what_the_app_refuses_is_told_with_its_details(self):
        def refuse(call):
            raise Refusal("FAILED_PRECONDITION", "not now: 100 %", [("google.rpc.ErrorInfo", {"reason": "R", "domain": "d"})])
        app = self.grpc_app({"OnInvoke": refuse})
        a, b = self.sidecar("caller"), self.sidecar("callee", app, flags=GRPC)
        for sidecar in (a, b):
            answer = sidecar.invoke("callee", "m", "POST", body=b"x")
            self.assertEqual(answer.status, 400)
            self.assertEqual(answer.json, {"code": 9, "message": "not now: 100 %", "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "d"}]})
            told = self.client(sidecar).call("Dapr/InvokeService", {"id": "callee", "message": {"method": "m"}})
            self.assertEqual((told.code, told.message, told.reason), ("FAILED_PRECONDITION", "not now: 100 %", "R"))
        del app.handlers["OnInvoke"]
        self.assertEqual(a.invoke("callee", "m").status, 501)

    def test_a_message_over_the_limit_is_an_error_and_the_next_one_is_served(self):
        app = self.grpc_app({"OnInvoke": lambda call: {"data": {"value": b"x" * int(call.request["method"])}}})
        a = self.sidecar("callee", app, flags=[*GRPC, "--max-body-size", "1Mi"])
        self.assertEqual(a.invoke("callee", "%d" % (2 << 20)).status, 429)
        self.assertEqual(len(a.invoke("callee", "%d" % (1 << 19)).body), 1 << 19)
        self.assertGreaterEqual(a.invoke("callee", "1", "POST", body=b"x" * (2 << 20)).status, 400)
        self.assertEqual(a.invoke("callee", "1", "POST", body=b"x" * (1 << 19)).body, b"x")

    def test_an_app_that_goes_away_and_comes_back(self):
        app = self.grpc_app({"OnInvoke": hello})
        a = self.sidecar("callee", app, flags=GRPC)
        self.assertEqual(a.invoke("callee", "m").status, 200)
        for _ in range(3):
            app.down()
            answer = a.invoke("callee", "m")
            self.assertEqual((answer.status, answer.json["code"]), (503, 14))
            app.up()
            self.assertEqual(a.invoke("callee", "m").status, 200)

    def test_no_more_calls_at_once_than_the_limit(self):
        gate = Gate()

        def wait(call):
            gate.wait()
            return hello(call)
        app = self.grpc_app({"OnInvoke": wait})
        a = self.sidecar("callee", app, flags=[*GRPC, "--app-max-concurrency", "3"])
        threads = [threading.Thread(target=a.invoke, args=("callee", "m")) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_for("three calls", lambda: app.in_hand == 3)
        gate.open()
        for thread in threads:
            thread.join()
        self.assertEqual((len(app.calls("OnInvoke")), app.most_in_hand), (12, 3))

    def test_grpcs_takes_any_certificate(self):
        key, cert = self.path("key.pem"), self.path("cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                        key, "-out", cert, "-days", "1", "-subj", "/CN=nobody"], check=True, stderr=subprocess.DEVNULL)
        with open(key, "rb") as k, open(cert, "rb") as c:
            credentials = grpc.ssl_server_credentials([(k.read(), c.read())])
        app = self.grpc_app({"OnInvoke": hello, "ListTopicSubscriptions": wants()}, tls=credentials)
        a = self.sidecar("callee", app, flags=("--app-protocol", "grpcs"))
        self.assertEqual(a.invoke("callee", "m").json, {"hi": 1})


@needs_grpc
class Health(GrpcCase):
    def test_probes_decide_whether_the_app_is_called(self):
        state = {"well": True}

        def probe(call):
            if not state["well"]:
                raise Refusal("UNAVAILABLE", "sick")
        app = self.grpc_app({"OnInvoke": hello, "HealthCheck": probe})
        a = self.sidecar("callee", app, env={"APP_API_TOKEN": "tok"}, flags=[
            *GRPC, "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1"])
        wait_for("a well app", lambda: a.invoke("callee", "m").status == 200)
        self.assertNotIn("dapr-api-token", app.calls("HealthCheck")[0].metadata)
        state["well"] = False
        wait_for("an unwell app", lambda: a.invoke("callee", "m").status == 500)
        state["well"] = True
        wait_for("an app that is well again", lambda: a.invoke("callee", "m").status == 200)


@needs_grpc
class Events(GrpcCase):
    def resources(self, **metadata):
        return {"ps.yaml": component("ps", "pubsub.sqlite", {"connectionString": self.path("ps.db"), "redeliverInterval": "100ms",
                                                             "maxRedeliverInterval": "200ms", **metadata})}

    @tag("debug", "tsan")
    def test_events_reach_the_app(self):
        app = self.grpc_app({"ListTopicSubscriptions": wants("t"), "OnTopicEvent": lambda call: None})
        a = self.sidecar("publisher", resources=self.resources())
        self.sidecar("subscriber", app, resources=self.resources(), flags=GRPC)
        for i in range(20):
            self.assertEqual(a.publish("ps", "t", {"n": i}).status, 204)
        wait_for("20 events", lambda: len(app.calls("OnTopicEvent")) >= 20)
        events = [c.request for c in app.calls("OnTopicEvent")]
        self.assertEqual(sorted(json.loads(e["data"])["n"] for e in events), list(range(20)))
        event = events[0]
        self.assertEqual((event["topic"], event["pubsub_name"], event["source"], event["data_content_type"], event["type"]),
                         ("t", "ps", "publisher", "application/json", "com.dapr.event.sent"))
        self.assertEqual(event["extensions"]["fields"]["pubsubname"], {"string_value": "ps"})

    def test_outcomes(self):
        answers = {"retry": [{"status": 1}, {}], "drop": [{"status": 2}], "away": [Refusal("UNAVAILABLE"), {}],
                   "unknown": [Refusal("UNIMPLEMENTED")], "odd": [{"status": 9}, {}], "good": [{}]}

        def on_event(call):
            answer = answers[json.loads(call.request["data"])].pop(0)
            if isinstance(answer, Refusal):
                raise answer
            return answer
        app = self.grpc_app({"ListTopicSubscriptions": wants("t"), "OnTopicEvent": on_event})
        a = self.sidecar("app", app, resources=self.resources(), flags=GRPC)
        for name in list(answers):
            self.assertEqual(a.publish("ps", "t", name).status, 204)
        wait_for("all answers", lambda: not any(answers.values()))
        self.assertEqual(len(app.calls("OnTopicEvent")), 9)

    def test_batches_under_both_names(self):
        def on_bulk(call):
            return {"statuses": [{"entry_id": e["entry_id"]} for e in call.request["entries"]]}
        for name in ("OnBulkTopicEvent", "OnBulkTopicEventAlpha1"):
            with self.subTest(name):
                app = self.grpc_app({"ListTopicSubscriptions": wants("t", bulk_subscribe={
                    "enabled": True, "max_messages_count": 10, "max_await_duration_ms": 100}), name: on_bulk})
                a = self.sidecar("app-" + name.lower(), app, resources=self.resources(), flags=GRPC)
                for i in range(25):
                    self.assertEqual(a.publish("ps", "t", i).status, 204)
                seen = lambda: sorted(int(e["cloud_event"]["data"]) for c in app.calls(name) for e in c.request["entries"])  # noqa: E731
                wait_for("25 entries", lambda: len(seen()) >= 25)
                self.assertEqual(seen(), list(range(25)))
                self.assertEqual(a.stop(), 0)

    def test_sigterm_while_the_app_has_a_message_gives_it_to_another(self):
        gate, taken = Gate(), []
        self.addCleanup(gate.open)
        stuck = self.grpc_app({"ListTopicSubscriptions": wants("t"), "OnTopicEvent": lambda call: gate.wait()})
        first = self.sidecar("app", stuck, resources=self.resources(), flags=[*GRPC, "--dapr-graceful-shutdown-seconds", "2"])
        self.assertEqual(first.publish("ps", "t", 1).status, 204)
        wait_for("the message in hand", lambda: stuck.in_hand == 1)
        app = self.grpc_app({"ListTopicSubscriptions": wants("t"), "OnTopicEvent": lambda call: taken.append(call)})
        self.sidecar("app", app, resources=self.resources(), flags=GRPC)
        self.assertEqual(first.stop(), 0)
        wait_for("the message at the other", lambda: taken)


class Stream:
    """A client's subscription; events come into a queue."""

    def __init__(self, client, pubsub, topic, **more):
        self.out, self.events = queue.Queue(), queue.Queue()
        self.code = None
        self.out.put({"initial_request": {"pubsub_name": pubsub, "topic": topic, **more}})
        self.call = client.stream("Dapr/SubscribeTopicEventsAlpha1", iter(self.out.get, None), timeout_s=60)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        if self.events.get(timeout=30) is not True:
            raise AssertionError("%s" % self.code)

    def read(self):
        try:
            for message in self.call:
                self.events.put(message.get("event_message", True))
            self.code = "OK"
        except grpc.RpcError as error:
            self.code = error.code().name
        self.events.put(None)

    def get(self, timeout_s=30):
        return self.events.get(timeout=timeout_s)

    def answer(self, event, status="SUCCESS"):
        self.out.put({"event_processed": {"id": event["id"], "status": {"status": ["SUCCESS", "RETRY", "DROP"].index(status)}}})

    def hang_up(self):
        self.out.put(None)
        self.thread.join(30)

    @classmethod
    def ends(cls, sidecar, *subscribed):
        """Streams one after the other, each of which leaves in another way than the one before: its client hangs up,
        cancels, or is gone with its connection."""
        for how in ("hang up", "cancel", "die") * 3:
            relay = Relay(sidecar.grpc)
            client = Client(relay.number)
            try:
                stream = cls(client, *subscribed)
                yield stream
                if how == "hang up":
                    stream.hang_up()
                elif how == "cancel":
                    stream.call.cancel()
                else:
                    relay.cut()
            finally:
                client.close()
                relay.close()


@needs_grpc
class Streams(GrpcCase):
    def resources(self, **metadata):
        return {"ps.yaml": component("ps", "pubsub.sqlite", {"connectionString": self.path("ps.db"), "redeliverInterval": "100ms",
                                                             **metadata})}

    @tag("debug", "tsan")
    def test_events_without_an_app(self):
        a = self.sidecar("app", resources=self.resources())
        stream = Stream(self.client(a), "ps", "t", dead_letter_topic="dead")
        listed = a.call("GET", "/v1.0/metadata").json["subscriptions"]
        self.assertEqual([(s["topic"], s["type"], s["deadLetterTopic"]) for s in listed], [("t", "STREAMING", "dead")])
        for i in range(200):  # beyond its credit
            self.assertEqual(a.publish("ps", "t", i).status, 204)
        got = []
        for _ in range(200):
            event = stream.get()
            got.append(int(event["data"]))
            stream.answer(event)
        self.assertEqual(sorted(got), list(range(200)))
        grave = Stream(self.client(a), "ps", "dead")
        self.assertEqual(a.publish("ps", "t", "bad").status, 204)
        stream.answer(stream.get(), "DROP")
        self.assertEqual(grave.get()["data"], b'"bad"')
        stream.hang_up()
        self.assertEqual(stream.code, "OK")
        wait_for("no stream of t", lambda: [s["topic"] for s in a.call("GET", "/v1.0/metadata").json["subscriptions"]] == ["dead"])

    def test_closed_and_reopened_it_leaves_no_phantom(self):
        """Pitfall 8."""
        a = self.sidecar("app", resources=self.resources(leaseDuration="600s"))
        self.assertEqual(a.publish("ps", "t", "x").status, 204)
        for stream in Stream.ends(a, "ps", "t"):
            self.assertEqual(stream.get()["data"], b'"x"')  # returned by the one before, at once and not when its lease is over
        wait_for("no stream", lambda: not a.call("GET", "/v1.0/metadata").json.get("subscriptions"))

    def test_a_sidecar_that_stops_ends_the_stream(self):
        a = self.sidecar("app", resources=self.resources())
        stream = Stream(self.client(a), "ps", "t")
        self.assertEqual(a.stop(), 0)
        self.assertIsNone(stream.get())
        self.assertEqual(stream.code, "OK")

    def test_it_goes_on_when_its_pubsub_is_opened_anew(self):
        a = self.sidecar("app", resources=self.resources())
        stream = Stream(self.client(a), "ps", "t")
        self.assertEqual(a.publish("ps", "t", 1).status, 204)
        stream.answer(stream.get())
        a.write("ps.yaml", self.resources(redeliverInterval="300ms")["ps.yaml"])
        a.wait_log("component loaded", 2)
        a.wait_log("subscribed", 2)
        self.assertEqual(a.publish("ps", "t", 2).status, 204)
        event = stream.get()
        self.assertEqual(event["data"], b"2")
        stream.answer(event)
        a.remove("ps.yaml")
        self.assertIsNone(stream.get())
        self.assertEqual(stream.code, "INVALID_ARGUMENT")


@needs_redis
class RedisStreams(Streams):
    """The same on a redis-server."""

    server = None

    def resources(self, **metadata):
        self.server = self.server or RedisServer(self)
        metadata.pop("leaseDuration", None)
        return {"ps.yaml": component("ps", "pubsub.redis", {"redisHost": self.server.host, "redeliverInterval": "100ms",
                                                            "processingTimeout": "600s", **metadata})}
