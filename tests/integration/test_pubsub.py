"""Publishing and delivery, most of it over pubsub.sqlite, where sidecars share one file."""
import contextlib
import json
import signal
import sqlite3
import threading
import time

from harness import SLOW, WAIT_S, Case, Reply, component, reply_json, tag, wait_for


def subscription(topic, route, name=None, dead_letter=None, extra=""):
    lines = ["apiVersion: dapr.io/v2alpha1", "kind: Subscription", "metadata:", "  name: " + (name or topic), "spec:",
             "  pubsubname: ps", "  topic: " + topic, "  routes:", "    default: " + route]
    if dead_letter:
        lines.append("  deadLetterTopic: " + dead_letter)
    return "\n".join(lines) + "\n" + extra


class PubSub(Case):
    def resources(self, *subscriptions, **metadata):
        metadata = {"connectionString": self.path("ps.db"), "redeliverInterval": "100ms", "maxRedeliverInterval": "300ms",
                    **metadata}
        return {"ps.yaml": component("ps", "pubsub.sqlite", metadata), "subs.yaml": "---\n".join(subscriptions) or "---\n"}

    def data(self, app, path="/event"):
        return [r.json["data"] for r in app.seen(path)]

    def wait_data(self, app, expected, path="/event", timeout_s=None):
        wait_for("delivery of %d messages" % len(expected),
                 lambda: set(map(json.dumps, self.data(app, path))) >= set(map(json.dumps, expected)), timeout_s)

    def broker(self, sql):
        """What stands in the broker's file."""
        with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % self.path("ps.db"), uri=True, timeout=10)) as db:
            return db.execute(sql).fetchall()

    def wait_settled(self):
        """Nothing is left that could be delivered, or delivered again."""
        wait_for("an empty broker", lambda: self.broker("SELECT count(*) FROM deliveries") == [(0,)])

    def wait_over(self, *subscribers):
        """Everything is settled, and nothing is on its way to an app any more."""
        self.wait_settled()
        for subscriber in subscribers:
            self.assertEqual(subscriber.stop(), 0)

    @tag("debug", "tsan")
    def test_what_one_app_publishes_the_other_receives(self):
        app = self.app(lambda r: Reply(200, b""))
        a = self.sidecar("publisher", resources=self.resources())
        self.sidecar("subscriber", app, resources=self.resources(subscription("t", "/event")))
        for i in range(20):
            self.assertEqual(a.publish("ps", "t", {"n": i}).status, 204)
        self.wait_data(app, [{"n": i} for i in range(20)])
        event = app.seen("/event")[0].json
        self.assertEqual((event["topic"], event["pubsubname"], event["source"]), ("t", "ps", "publisher"))
        self.assertEqual(app.seen("/event")[0].header("Content-Type"), "application/cloudevents+json")

    def test_programmatic_subscription(self):
        for type_ in ("pubsub.in-memory", "pubsub.sqlite"):
            app = self.app(lambda r: Reply(200, b""), subscriptions=[{"pubsubname": "ps", "topic": "t", "route": "/event"}])
            a = self.sidecar("app", app, resources={"ps.yaml": component("ps", type_, {"connectionString": self.path("p.db")}
                                                                           if "sql" in type_ else None)})
            a.wait_log('msg="subscribed"')
            self.assertEqual(a.publish("ps", "t", "x").status, 204)
            wait_for("delivery", lambda: app.seen("/event"))

    def test_names_in_what_apps_answer_have_no_case(self):
        """As Go reads them: SDKs spell them in their own way."""
        answers = ["retry", "success"]

        def handler(request):
            if request.path == "/bulk":
                return reply_json({"Statuses": [{"EntryID": e["entryId"], "Status": "SUCCESS"} for e in request.json["entries"]]})
            return reply_json({"Status": answers.pop(0).upper() if answers else "SUCCESS"})
        app = self.app(handler, subscriptions=[
            {"PubsubName": "ps", "Topic": "t", "Routes": {"Rules": [{"Match": "event.type == 'odd'", "Path": "/odd"}], "Default": "/event"}},
            {"pubsubName": "ps", "TOPIC": "b", "Route": "/bulk", "BulkSubscribe": {"Enabled": True, "maxmessagescount": 2}}])
        a = self.sidecar("app", app, resources=self.resources())
        a.publish("ps", "t", {"n": 1})
        self.wait_data(app, [{"n": 1}])
        wait_for("it to come again", lambda: len(app.seen("/event")) == 2)
        a.publish("ps", "b", {"n": 2})
        a.publish("ps", "b", {"n": 3})
        wait_for("the batch", lambda: app.seen("/bulk"))
        self.assertEqual([len(r.json["entries"]) for r in app.seen("/bulk")], [2])

    @tag("debug")
    def test_27_events_without_trace_or_with_one_that_is_no_text(self):
        events = [{"id": "1", "data": {"n": 1}},
                  {"id": "2", "data": {"n": 2}, "traceid": 7, "traceparent": {"a": []}, "tracestate": False},
                  {"id": "3", "data": {"n": 3}, "traceid": None, "traceparent": "00-nonsense", "tracestate": ","}]
        app = self.app(lambda r: Reply(200, b""))
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event")))
        for event in events:
            answer = a.call("POST", "/v1.0/publish/ps/t", [("Content-Type", "application/cloudevents+json")], json.dumps(event).encode())
            self.assertEqual(answer.status, 204, answer.body)
        self.wait_data(app, [event["data"] for event in events])
        a.publish("ps", "t", {"n": 4})
        self.wait_data(app, [{"n": 4}])

    def test_delivery_is_prompt(self):
        arrived = {}

        def handler(request):
            arrived[request.json["data"]["n"]] = time.monotonic()
            return Reply(200, b"")
        app = self.app(handler)
        a = self.sidecar("publisher", resources=self.resources())
        self.sidecar("subscriber", app, resources=self.resources(subscription("t", "/event")))
        took = []
        for i in range(60):
            self.wait_settled()  # what is measured begins at rest
            began = time.monotonic()
            a.publish("ps", "t", {"n": i})
            wait_for("arrival", lambda: i in arrived)
            took.append(arrived[i] - began)
        median = sorted(took)[len(took) // 2]
        self.assertLess(median, 0.015 * SLOW, "publish and delivery took %.1f ms" % (median * 1000))

    def test_each_group_gets_every_message_and_its_members_share(self):
        apps = {name: self.app(lambda r: Reply(200, b"")) for name in ("x1", "x2", "y")}
        a = self.sidecar("publisher", resources=self.resources())
        subscribers = [self.sidecar(name[0], app, resources=self.resources(subscription("t", "/event"))) for name, app in apps.items()]

        def group(*names):
            return sorted(v["n"] for name in names for v in self.data(apps[name]) if v["n"] >= 0)
        wait_for("both groups", lambda: a.publish("ps", "t", {"n": -1}).status == 204 and apps["y"].seen("/event")
                 and (apps["x1"].seen("/event") or apps["x2"].seen("/event")))  # a group gets what comes after it is known
        sent = [{"n": i} for i in range(200)]
        for value in sent:
            self.assertEqual(a.publish("ps", "t", value).status, 204)
        self.wait_data(apps["y"], sent)
        wait_for("group x", lambda: len(group("x1", "x2")) >= 200)
        self.wait_over(*subscribers)
        self.assertEqual((group("x1", "x2"), group("y")), (list(range(200)), list(range(200))))

    def test_a_group_that_is_away_finds_its_messages(self):
        app = self.app(lambda r: Reply(200, b""))
        resources = self.resources(subscription("t", "/event"))
        a = self.sidecar("publisher", resources=self.resources())
        b = self.sidecar("subscriber", app, resources=resources)
        a.publish("ps", "t", {"n": 0})
        self.wait_data(app, [{"n": 0}])
        self.assertEqual(b.stop(), 0)
        for i in range(1, 10):
            self.assertEqual(a.publish("ps", "t", {"n": i}).status, 204)
        b = self.sidecar("subscriber", app, resources=resources)
        self.wait_data(app, [{"n": i} for i in range(10)])
        self.wait_over(b)
        self.assertEqual(len(app.seen("/event")), 10)

    @tag("debug")
    def test_kill_9_of_publisher_and_subscriber_loses_nothing(self):
        seen, lock = set(), threading.Lock()

        def handler(request):
            with lock:
                seen.add(request.json["data"]["n"])
            return Reply(200, b"")
        app = self.app(handler)
        resources = self.resources(subscription("t", "/event"), leaseDuration="1s")
        a = self.sidecar("publisher", resources=self.resources())
        b = self.sidecar("subscriber", app, resources=resources)
        acknowledged, n = set(), 0
        for round_ in range(3):
            under_way, killed = threading.Event(), threading.Event()

            def kill():
                under_way.wait(WAIT_S)
                (a if round_ == 1 else b).kill()
                killed.set()
            thread = threading.Thread(target=kill)
            thread.start()
            before, after = 0, 0
            while before < 30 or after < 30:  # without a pause, so the kill falls in the middle
                n += 1
                was_killed = killed.is_set()
                try:
                    if a.publish("ps", "t", {"n": n}).status == 204:
                        acknowledged.add(n)
                except (OSError, EOFError):
                    break
                before, after = before + (not was_killed), after + was_killed
                if before == 30:
                    under_way.set()
            under_way.set()
            thread.join()
            if round_ == 1:
                a = self.sidecar("publisher", resources=self.resources())
            else:
                b = self.sidecar("subscriber", app, resources=resources)
        self.assertGreater(len(acknowledged), 50)
        wait_for("all that was acknowledged", lambda: acknowledged <= seen, 30)

    def test_another_instance_takes_over_from_a_dead_one(self):
        gate = threading.Event()
        stuck = self.app(lambda r: (gate.wait(30), Reply(500, b""))[1])
        well = self.app(lambda r: Reply(200, b""))
        resources = self.resources(subscription("t", "/event"), leaseDuration="1s")
        a = self.sidecar("publisher", resources=self.resources())
        b1 = self.sidecar("subscriber", stuck, resources=resources)
        self.assertEqual(a.publish("ps", "t", {"n": 1}).status, 204)
        wait_for("the stuck delivery", lambda: stuck.seen("/event"))
        self.sidecar("subscriber", well, resources=resources)
        b1.kill()
        gate.set()
        self.wait_data(well, [{"n": 1}])

    @tag("debug")
    def test_outcomes_retry_drop_and_statuses(self):
        tries = {}

        def handler(request):
            kind = request.json["data"]
            tries[kind] = tries.get(kind, 0) + 1
            if kind == "retry" and tries[kind] < 3:
                return reply_json({"status": "RETRY"})
            if kind == "fail" and tries[kind] < 3:
                return Reply(500, b"")
            if kind == "drop":
                return reply_json({"status": "DROP"})
            if kind == "none":
                return Reply(404, b"")
            return reply_json({"status": "SUCCESS"})
        app = self.app(handler)
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event")))
        for kind in ("retry", "fail", "drop", "none", "fine"):
            a.publish("ps", "t", kind)
        wait_for("retries", lambda: tries.get("retry", 0) >= 3 and tries.get("fail", 0) >= 3)
        self.wait_over(a)
        self.assertEqual(tries, {"retry": 3, "fail": 3, "drop": 1, "none": 1, "fine": 1})

    def test_dead_letter_gets_what_cannot_be_processed(self):
        app = self.app(lambda r: Reply(500 if r.path == "/event" else 200, b""))
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event", dead_letter="dead"),
                                                              subscription("dead", "/dead")))
        a.publish("ps", "t", {"n": 1})
        self.wait_data(app, [{"n": 1}], "/dead")

    @tag("debug")
    def test_05_dead_letter_unreachable_keeps_the_message(self):
        """The dead-letter topic is not allowed, so publishing there fails: the message comes again until it is processed."""
        fine, answers = threading.Event(), []

        def handler(request):
            answers.append(200 if fine.is_set() else 500)
            return Reply(answers[-1], b"")
        app = self.app(handler)
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event", dead_letter="dead"), allowedTopics="t"))
        self.assertEqual(a.publish("ps", "t", {"n": 1}).status, 204)
        wait_for("redelivery", lambda: len(app.seen("/event")) >= 3)
        fine.set()
        wait_for("the last delivery", lambda: 200 in answers)
        self.wait_over(a)
        self.assertEqual(answers.count(200), 1)

    @tag("debug")
    def test_unhealthy_app_pauses_delivery_and_resumes(self):
        healthy = threading.Event()
        healthy.set()

        def handler(request):
            if request.path == "/healthz":
                return Reply(200 if healthy.is_set() else 503, b"")
            return Reply(200, b"")
        app = self.app(handler)
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event")),
                         flags=["--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1"])
        a.publish("ps", "t", {"n": 0})
        self.wait_data(app, [{"n": 0}])
        healthy.clear()
        probes = len(app.seen("/healthz"))
        wait_for("two bad probes", lambda: len(app.seen("/healthz")) >= probes + 2)
        for i in range(1, 6):
            self.assertEqual(a.publish("ps", "t", {"n": i}).status, 204)
        probes = len(app.seen("/healthz"))
        wait_for("two more bad probes", lambda: len(app.seen("/healthz")) >= probes + 2)
        self.assertEqual(len(app.seen("/event")), 1)
        self.assertEqual(self.broker("SELECT attempt FROM deliveries"), [(0,)] * 5)
        healthy.set()
        self.wait_data(app, [{"n": i} for i in range(6)])

    def test_app_late_gone_and_back_loses_nothing(self):
        app = self.app(lambda r: Reply(200, b""), is_up=False)
        a = self.sidecar("publisher", resources=self.resources())
        b = self.sidecar("subscriber", app, is_ready=False, resources=self.resources(subscription("t", "/event")))
        app.up()
        b.wait_ready()
        b.wait_log('msg="subscribed"')
        self.assertEqual(a.publish("ps", "t", "probe").status, 204)
        wait_for("delivery", lambda: app.seen("/event"))
        app.down()
        for i in range(5):
            self.assertEqual(a.publish("ps", "t", {"n": i}).status, 204)
        b.wait_log("delivery failed, the message comes again")
        app.up()
        self.wait_data(app, [{"n": i} for i in range(5)])

    @tag("debug")
    def test_06_a_delivery_in_progress_is_not_repeated(self):
        gate = threading.Event()
        app = self.app(lambda r: (gate.wait(30), Reply(200, b""))[1])
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event"), leaseDuration="1s"))
        a.publish("ps", "t", {"n": 1})
        wait_for("the delivery", lambda: app.seen("/event"))
        time.sleep(3.5)  # several leases long; this is the time that the test is about
        self.assertEqual(len(app.seen("/event")), 1)
        gate.set()
        self.wait_over(a)
        self.assertEqual(len(app.seen("/event")), 1)

    def test_04_messages_in_hand_are_finished_at_shutdown(self):
        finished, gate = [], threading.Event()

        def handler(request):
            gate.wait(WAIT_S)
            finished.append(request.json["data"]["n"])
            return Reply(200, b"")
        app = self.app(handler)
        resources = self.resources(subscription("t", "/event"))
        a = self.sidecar("publisher", resources=self.resources())
        b = self.sidecar("subscriber", app, resources=resources)
        for i in range(10):
            a.publish("ps", "t", {"n": i})
        wait_for("the first deliveries", lambda: app.seen("/event"))
        b.signal(signal.SIGTERM)
        b.wait_log("shutting down")
        gate.set()
        self.assertEqual(b.wait_exit(), 0)
        b = self.sidecar("subscriber", app, resources=resources)
        wait_for("all messages", lambda: set(finished) == set(range(10)))
        self.wait_over(b)
        self.assertEqual(sorted(finished), list(range(10)))  # none twice: those in hand were acknowledged

    def test_routes_by_content(self):
        app = self.app(lambda r: Reply(200, b""))
        routed = ("apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: r\nspec:\n  pubsubname: ps\n  topic: t\n"
                  "  routes:\n    rules:\n    - match: event.data.amount > 100\n      path: /big\n"
                  "    - match: event.data.kind == \"gift\"\n      path: /gift\n    default: /rest\n")
        a = self.sidecar("app", app, resources=self.resources(routed))
        for value in ({"amount": 500}, {"amount": 1, "kind": "gift"}, {"amount": 1, "kind": "x"}):
            a.publish("ps", "t", value)
        wait_for("all", lambda: len(app.seen("/big")) == 1 and len(app.seen("/gift")) == 1 and len(app.seen("/rest")) == 1)

    def test_bulk_publish_and_bulk_delivery(self):
        def handler(request):
            return reply_json({"statuses": [{"entryId": e["entryId"], "status": "SUCCESS"} for e in request.json["entries"]]})
        app = self.app(handler)
        sub = subscription("t", "/event", extra="  bulkSubscribe:\n    enabled: true\n    maxMessagesCount: 5\n    maxAwaitDurationMs: 100\n")
        a = self.sidecar("app", app, resources=self.resources(sub))
        entries = [{"entryId": str(i), "event": {"n": i}, "contentType": "application/json"} for i in range(12)]
        self.assertEqual(a.call_json("POST", "/v1.0/publish/bulk/ps/t", entries).status, 204)

        def delivered():
            return sorted(e["event"]["data"]["n"] for r in app.seen("/event") for e in r.json["entries"])
        wait_for("all", lambda: delivered() == list(range(12)))
        self.assertLessEqual(max(len(r.json["entries"]) for r in app.seen("/event")), 5)

    def test_names_in_a_bulk_publish_are_read_in_any_case(self):
        app = self.app(lambda r: Reply(200, b""))
        a = self.sidecar("app", app, resources=self.resources(subscription("t", "/event")))
        entries = [{"entryID": "1", "Event": {"n": 1}, "contenttype": "application/json"}]  # entryID: the JavaScript SDK
        self.assertEqual(a.call_json("POST", "/v1.0/publish/bulk/ps/t", entries).status, 204)
        self.wait_data(app, [{"n": 1}])

    def test_an_event_of_very_many_values_is_delivered(self):
        """A list of digits takes most memory for its bytes: what a request may bring, its event may, too."""
        app = self.app()
        a = self.sidecar("app", app, resources=self.resources(subscription("many", "/event")))
        many = [1] * 1_900_000
        answer = a.call("POST", "/v1.0/publish/ps/many", [("Content-Type", "application/json")],
                        json.dumps(many, separators=(",", ":")).encode())
        self.assertEqual(answer.status, 204)
        wait_for("the event", lambda: app.seen("/event"), WAIT_S)
        self.assertEqual(self.data(app)[0], many)

    def test_ttl_drops_what_came_too_late(self):
        app = self.app(lambda r: Reply(200, b""))
        resources = self.resources(subscription("t", "/event"))
        a = self.sidecar("publisher", resources=self.resources())
        b = self.sidecar("subscriber", app, resources=resources)
        a.publish("ps", "t", {"n": 0})
        self.wait_data(app, [{"n": 0}])
        b.stop()
        a.call_json("POST", "/v1.0/publish/ps/t?metadata.ttlInSeconds=1", {"n": 1})
        a.publish("ps", "t", {"n": 2})
        [(expires_ms,)] = self.broker("SELECT expires_ms FROM messages WHERE expires_ms IS NOT NULL")
        wait_for("its expiry", lambda: time.time() * 1000 > expires_ms)
        b = self.sidecar("subscriber", app, resources=resources)
        self.wait_data(app, [{"n": 2}])
        self.wait_over(b)
        self.assertEqual([v["n"] for v in self.data(app)], [0, 2])

    def test_corrupt_broker_file_is_a_clear_error(self):
        with open(self.path("ps.db"), "wb") as file:
            file.write(b"certainly not a database" * 1000)
        a = self.sidecar("app", resources=self.resources(), is_ready=False)
        self.assertEqual(a.wait_exit(), 1)
        self.assertRegex(a.log(), r"ps.*(not a database|corrupt|malformed)")
