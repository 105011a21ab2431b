"""Outbox: events of state transactions, on every pair of stores and brokers."""
import sqlite3
import threading

from grpc_client import Client, needs_grpc
from harness import Case, Reply, component, tag, wait_for
from redis_server import RedisServer, needs_redis
from state_behaviours import Store, delete, upsert

OUTBOX = {"outboxPublishPubsub": "ps", "outboxPublishTopic": "orders"}
SUBSCRIPTIONS = [{"pubsubname": "ps", "topic": "orders", "route": "/orders"}]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROJECTION = {"metadata": {"outbox.projection": "true"}}


class Outbox(Case):
    def resources(self, type_="state.sqlite", broker="pubsub.sqlite", metadata=None, **more):
        place = metadata or {"connectionString": self.path("state.db")}
        events = {"connectionString": self.path("events.db")} if "sqlite" in broker else None
        return {"st.yaml": component("st", type_, {**place, **OUTBOX, **more}), "ps.yaml": component("ps", broker, events)}

    def start(self, resources, app_id="app", handler=None):
        app = self.app(handler or (lambda r: Reply(200)), subscriptions=SUBSCRIPTIONS)
        sidecar = self.sidecar(app_id, app, resources=resources)
        return Store(sidecar), app

    def events(self, app):
        return [r.json for r in app.seen("/orders")]

    def markers(self):
        with sqlite3.connect(self.path("state.db")) as db:
            return db.execute("SELECT count(*) FROM state WHERE key LIKE 'outbox-%'").fetchone()[0]

    def check(self, resources):
        store, app = self.start(resources)
        # A broker in memory has no event for who is not subscribed yet, and the app is asked after the start.
        wait_for("the subscription", lambda: "subscribed" in store.sidecar.log())
        self.assertEqual(store.transact(upsert("o1", {"n": 1}, contentType="application/json"), delete("o0"),
                                        upsert("o2", "text", metadata={"type": "order.v1", "id": "mine", "color": "red"}),
                                        headers=[("traceparent", TRACE)]).status, 204)
        wait_for("both events", lambda: len(self.events(app)) >= 2, 60)
        by_data = {str(e["data"]): e for e in self.events(app)}
        first, second = by_data["{'n': 1}"], by_data["text"]
        self.assertEqual((first["topic"], first["pubsubname"], first["source"], first["datacontenttype"]), ("orders", "ps", "app", "application/json"))
        self.assertTrue(first["id"].startswith("outbox-"))
        self.assertEqual(first["traceid"][:35], TRACE[:35])
        self.assertEqual((second["type"], second["color"], second["datacontenttype"]), ("order.v1", "red", "text/plain"))
        self.assertNotEqual(second["id"], "mine")
        self.assertEqual((store.value("o1"), store.value("o2")), ({"n": 1}, "text"))
        return store, app

    @tag("debug", "tsan")
    def test_sqlite(self):
        store, app = self.check(self.resources())
        wait_for("the end of the markers", lambda: self.markers() == 0, 60)
        # Saves and deletes outside of transactions have no events; the last one is told to see that none came before.
        store.save("o3", 3)
        store.delete("o3")
        store.transact(delete("o1"))
        store.transact(upsert("last", "last"))
        wait_for("the last event", lambda: any(e["data"] == "last" for e in self.events(app)), 60)
        self.assertEqual(len({e["id"] for e in self.events(app)}), 3)

    @tag("debug", "tsan")
    def test_in_memory(self):
        self.check(self.resources("state.in-memory", "pubsub.in-memory", {"keyPrefix": "appid"}))

    @needs_redis
    @tag("debug")
    def test_redis(self):
        server = RedisServer(self)
        store, _ = self.check(self.resources("state.redis", metadata={"redisHost": server.host}))
        wait_for("the end of the markers", lambda: server.command("KEYS", "outbox-*") == [], 60)
        self.assertEqual(server.hash("app||o1")["data"], '{"n":1}')

    @needs_redis
    @tag("debug")
    def test_redis_for_both(self):
        server = RedisServer(self)
        resources = self.resources("state.redis", metadata={"redisHost": server.host})
        resources["ps.yaml"] = component("ps", "pubsub.redis", {"redisHost": server.host})
        self.check(resources)
        wait_for("the end of the markers", lambda: server.command("KEYS", "outbox-*") == [], 60)
        # Where a daprd of the app looks for them, too.
        self.assertEqual(server.command("XLEN", "defaultappordersoutbox"), 2)

    @tag("debug")
    def test_a_projection_is_published_and_not_stored(self):
        store, app = self.start(self.resources())
        self.assertEqual(store.transact(upsert("o", {"secret": 1, "n": 2}, contentType="application/json"),
                                        upsert("o", {"n": 2}, contentType="application/json", **PROJECTION)).status, 204)
        wait_for("the event", lambda: self.events(app), 60)
        self.assertEqual(self.events(app)[0]["data"], {"n": 2})
        self.assertEqual(store.value("o"), {"secret": 1, "n": 2})

    def test_an_event_of_very_many_values_is_delivered(self):
        """A list of digits takes most memory for its bytes: what a transaction may bring, its event may, too."""
        store, app = self.start(self.resources())
        many = [1] * 1_000_000
        self.assertEqual(store.transact(upsert("o", many, contentType="application/json")).status, 204)
        wait_for("the event", lambda: self.events(app), 60)
        self.assertEqual(self.events(app)[0]["data"], many)

    @tag("debug")
    def test_what_was_not_done_is_not_told(self):
        store, app = self.start(self.resources(outboxDiscardWhenMissingState="true"))
        store.save("o", 1)
        old = store.etag("o")
        store.save("o", 2)
        self.assertEqual(store.transact(upsert("p", "never"), upsert("o", "never", etag=old)).status, 500)
        self.assertEqual(store.transact(upsert("p", "told")).status, 204)
        wait_for("the event", lambda: self.events(app), 60)
        store.sidecar.wait_log("an outbox event of no transaction is dropped", 2, 60)
        self.assertEqual([e["data"] for e in self.events(app)], ["told"])
        self.assertEqual(store.value("p"), "told")

    def test_a_broker_that_is_away_keeps_the_transaction_back(self):
        resources = self.resources()
        del resources["ps.yaml"]
        store, _ = self.start(resources)
        answer = store.transact(upsert("o", 1))
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_PUBLISH_OUTBOX"))
        self.assertEqual(answer.json["details"][0]["reason"], "DAPR_PUBSUB_OUTBOX")
        self.assertEqual(store.get("o").status, 204)
        self.assertEqual(store.transact(delete("o")).status, 204)  # it has no event

    @tag("debug")
    def test_kills_lose_no_event_of_a_done_transaction(self):
        """The sidecar is killed at work; what it acknowledged is told in the end, and all that is told was done."""
        store, app = self.start(self.resources(outboxDiscardWhenMissingState="true"))
        done, stop = [], threading.Event()

        def work(n):
            at = 0
            while not stop.is_set():
                key = "k%d-%d" % (n, at)
                at += 1
                try:
                    if store.transact(upsert(key, key)).status == 204:
                        done.append(key)
                except (OSError, EOFError, ValueError, AssertionError):  # the sidecar is away
                    pass
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            reached = len(done) + 40
            wait_for("transactions", lambda: len(done) >= reached, 60)
            store.sidecar.kill()
            store.sidecar.start()
        stop.set()
        for thread in threads:
            thread.join()
        wait_for("all events", lambda: set(done) <= {e["data"] for e in self.events(app)}, 100)
        for key in {e["data"] for e in self.events(app)} - set(done):
            self.assertEqual(store.value(key), key)

    @tag("debug")
    def test_a_reload_goes_on(self):
        resources = self.resources()
        store, app = self.start(resources)
        store.transact(upsert("a", "before"))
        wait_for("an event", lambda: len(self.events(app)) == 1, 60)
        store.sidecar.write("other.yaml", component("other", "state.in-memory"))
        wait_for("the reload", lambda: Store(store.sidecar, "other").save("k", 1).status == 204, 60)
        store.transact(upsert("b", "after"))
        wait_for("an event", lambda: {e["data"] for e in self.events(app)} == {"before", "after"}, 60)

    @needs_grpc
    @tag("debug")
    def test_over_grpc(self):
        store, app = self.start(self.resources())
        with Client(store.sidecar.grpc) as client:
            operations = [{"operationType": "upsert", "request": {"key": "g", "value": b'{"n":1}', "metadata": {"contentType": "application/json"}}},
                          {"operationType": "upsert", "request": {"key": "h", "value": b"bytes"}}]
            answer = client.call("Dapr/ExecuteStateTransaction", {"storeName": "st", "operations": operations})
            self.assertEqual(answer.code, "OK", answer)
        wait_for("both events", lambda: len(self.events(app)) >= 2, 60)
        self.assertEqual(sorted(str(e["data"]) for e in self.events(app)), ["bytes", "{'n': 1}"])
