"""State, events, secrets and metadata over gRPC, with grpcio's own client, and together with HTTP."""
import json
import os
import sqlite3
import threading

from grpc_client import Client, needs_grpc, new
from harness import Case, Reply, component, tag, wait_for

STORES = ("state.in-memory", "state.sqlite")
NO_ETAG = "00000000-0000-0000-0000-000000000000"


def store(type_):
    return {"st.yaml": component("st", type_, {"connectionString": "s.db"} if "sql" in type_ else None)}


@needs_grpc
class Grpc(Case):
    def client(self, sidecar):
        client = Client(sidecar.grpc)
        self.addCleanup(client.close)
        return client

    def ok(self, answer):
        self.assertEqual(answer.code, "OK", answer)
        return answer.response

    def refused(self, answer, code, reason=None, text=None):
        self.assertEqual((answer.code, answer.reason), (code, reason), answer)
        if text:
            self.assertIn(text, answer.message)


class State(Grpc):
    @tag("debug", "tsan")
    def test_save_get_delete_with_etags(self):
        for type_ in STORES:
            client = self.client(self.sidecar("app", resources=store(type_)))
            states = [{"key": "a", "value": b"\x00\x01\xff"}, {"key": "b", "value": b"plain"}]
            self.assertEqual(self.ok(client.call("Dapr/SaveState", {"store_name": "st", "states": states})), {})
            got = self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "a"}))
            self.assertEqual(got["data"], b"\x00\x01\xff")
            self.assertTrue(got["etag"])
            self.assertEqual(self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "none"})), {})
            wrong = {"store_name": "st", "states": [{"key": "a", "value": b"2", "etag": {"value": NO_ETAG}}]}
            self.refused(client.call("Dapr/SaveState", wrong), "ABORTED", "ERR_STATE_SAVE", "possible etag mismatch")
            right = {"store_name": "st", "states": [{"key": "a", "value": b"2", "etag": {"value": got["etag"]}}]}
            self.ok(client.call("Dapr/SaveState", right))
            self.refused(client.call("Dapr/DeleteState", {"store_name": "st", "key": "a", "etag": {"value": got["etag"]}}),
                         "ABORTED", "ERR_STATE_DELETE")
            self.ok(client.call("Dapr/DeleteState", {"store_name": "st", "key": "a"}))
            self.assertEqual(self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "a"})), {})

    @tag("debug")
    def test_bulk_and_transactions(self):
        for type_ in STORES:
            client = self.client(self.sidecar("app", resources=store(type_)))
            operations = [{"operationType": "upsert", "request": {"key": k, "value": k.encode()}} for k in "abc"]
            self.ok(client.call("Dapr/ExecuteStateTransaction", {"storeName": "st", "operations": operations}))
            operations = [{"operationType": "upsert", "request": {"key": "a", "value": b"new"}},
                          {"operationType": "delete", "request": {"key": "b", "etag": {"value": NO_ETAG}}}]
            self.refused(client.call("Dapr/ExecuteStateTransaction", {"storeName": "st", "operations": operations}),
                         "INTERNAL", "ERR_STATE_TRANSACTION")
            bulk = {"store_name": "st", "keys": ["a", "b", "none"], "parallelism": 2}
            items = self.ok(client.call("Dapr/GetBulkState", bulk))["items"]
            self.assertEqual([(i["key"], i.get("data")) for i in items], [("a", b"a"), ("b", b"b"), ("none", None)])
            self.ok(client.call("Dapr/DeleteBulkState", {"store_name": "st", "states": [{"key": "a"}, {"key": "b"}]}))
            items = self.ok(client.call("Dapr/GetBulkState", {"store_name": "st", "keys": ["a", "c"]}))["items"]
            self.assertEqual([i.get("data") for i in items], [None, b"c"])
            self.refused(client.call("Dapr/QueryStateAlpha1", {"store_name": "st", "query": "{}"}), "INTERNAL",
                         "DAPR_STATE_QUERYING_NOT_SUPPORTED")

    @tag("debug")
    def test_both_front_ends_see_one_store(self):
        for type_ in STORES:
            a = self.sidecar("app", resources=store(type_))
            client = self.client(a)
            self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "h", "value": {"b": 1, "a": "<"}}]).status, 204)
            self.assertEqual(self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "h"}))["data"],
                             b'{"a":"\\u003c","b":1}')
            typed = {"key": "j", "value": b'{"b": 1, "a": 2.50}', "metadata": {"contentType": "application/json"}}
            self.ok(client.call("Dapr/SaveState", {"store_name": "st", "states": [typed, {"key": "t", "value": b"words"}]}))
            self.assertEqual(a.call("GET", "/v1.0/state/st/j").body, b'{"a":2.5,"b":1}')
            self.assertEqual(a.call("GET", "/v1.0/state/st/t").body, b"words")
            typed["value"] = b"{"
            self.refused(client.call("Dapr/SaveState", {"store_name": "st", "states": [typed]}), "INVALID_ARGUMENT",
                         "ERR_STATE_SAVE", "contentType")

    def test_first_write_over_both_front_ends_has_one_winner(self):
        for type_ in STORES:
            a = self.sidecar("app", resources=store(type_))
            client = self.client(a)
            for round_ in range(5):
                key, wins = "k%d" % round_, []

                def write(n):
                    options = {"concurrency": 1}
                    if n % 2:
                        state = {"key": key, "value": b"%d" % n, "options": options}
                        wins.append(client.call("Dapr/SaveState", {"store_name": "st", "states": [state]}).code == "OK")
                    else:
                        item = {"key": key, "value": n, "options": {"concurrency": "first-write"}}
                        wins.append(a.call_json("POST", "/v1.0/state/st", [item]).status == 204)
                threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(wins.count(True), 1)


class Events(Grpc):
    @tag("debug")
    def test_published_over_grpc_delivered_over_http(self):
        for type_ in ("pubsub.in-memory", "pubsub.sqlite"):
            topics = [{"pubsubname": "ps", "topic": "t", "route": "/t"},
                      {"pubsubname": "ps", "topic": "raw", "route": "/raw", "metadata": {"rawPayload": "true"}}]
            app = self.app(lambda r: Reply(200, b""), subscriptions=topics)
            a = self.sidecar("app", app, resources={"ps.yaml": component(
                "ps", type_, {"connectionString": "p.db"} if "sql" in type_ else None)})
            client = self.client(a)
            wait_for("subscriptions", lambda: len(self.ok(client.call("Dapr/GetMetadata")).get("subscriptions", [])) == 2)
            self.ok(client.call("Dapr/PublishEvent", {"pubsub_name": "ps", "topic": "t", "data": b'{"n":1}',
                                                      "data_content_type": "application/json"}))
            self.ok(client.call("Dapr/PublishEvent", {"pubsub_name": "ps", "topic": "t", "data": b"\x00\xff",
                                                      "data_content_type": "application/octet-stream"}))
            entries = [{"entry_id": "1", "event": b"one", "content_type": "text/plain", "metadata": {"cloudevent.id": "i1"}},
                       {"entry_id": "2", "event": b"two", "content_type": "text/plain"}]
            for name in ("Dapr/BulkPublishEvent", "Dapr/BulkPublishEventAlpha1"):
                self.assertEqual(self.ok(client.call(name, {"pubsub_name": "ps", "topic": "t", "entries": entries})), {})
            events = wait_for("events", lambda: len(app.seen("/t")) == 6 and [json.loads(r.body) for r in app.seen("/t")])
            data = sorted(str(e.get("data", e.get("data_base64"))) for e in events)
            self.assertEqual(data, sorted(["{'n': 1}", "AP8=", "one", "two", "one", "two"]))
            self.assertEqual(sum(e["id"] == "i1" for e in events), 2)
            self.ok(client.call("Dapr/PublishEvent", {"pubsub_name": "ps", "topic": "raw", "data": b"bytes",
                                                      "metadata": {"rawPayload": "true"}}))
            event = wait_for("raw event", lambda: app.seen("/raw") and json.loads(app.seen("/raw")[0].body))
            self.assertEqual((event["data_base64"], event["source"]), ("Ynl0ZXM=", "Dapr"))

    @tag("debug")
    def test_refusals_name_what_is_wrong(self):
        a = self.sidecar("app", resources={"ps.yaml": component("ps", "pubsub.in-memory", {"publishingScopes": "app=open"})})
        client = self.client(a)
        for name, event in (("PublishEvent", {"data": b"x"}),
                            ("BulkPublishEvent", {"entries": [{"entry_id": "1", "event": b"x"}]})):
            def publish(pubsub, topic, **more):
                return client.call("Dapr/" + name, {"pubsub_name": pubsub, "topic": topic, **event, **more})
            self.ok(publish("ps", "open"))
            self.refused(publish("", "open"), "INVALID_ARGUMENT", "DAPR_PUBSUB_NAME_EMPTY", "pubsub name is empty")
            self.refused(publish("none", "open"), "INVALID_ARGUMENT", "DAPR_PUBSUB_NOT_FOUND", "pubsub none is not found")
            self.refused(publish("ps", ""), "INVALID_ARGUMENT", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty in pubsub ps")
            self.refused(publish("ps", "shut"), "PERMISSION_DENIED", "DAPR_PUBSUB_FORBIDDEN", "topic shut is not allowed")
            self.refused(publish("ps", "open", metadata={"rawPayload": "maybe"}), "INVALID_ARGUMENT",
                         "DAPR_PUBSUB_METADATA_DESERIALIZATION", "maybe")


class Rest(Grpc):
    @tag("debug")
    def test_secrets_under_their_scopes(self):
        with open(self.path("s.json"), "w") as file:
            json.dump({"shown": "yes", "hidden": "no"}, file)
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  secrets:\n    scopes:\n"
                  "    - {storeName: sec, defaultAccess: allow, deniedSecrets: [hidden]}\n")
        a = self.sidecar("app", config=config, resources={
            "sec.yaml": component("sec", "secretstores.local.file", {"secretsFile": self.path("s.json")})})
        client = self.client(a)
        self.assertEqual(self.ok(client.call("Dapr/GetSecret", {"store_name": "sec", "key": "shown"})),
                         {"data": {"shown": "yes"}})
        self.refused(client.call("Dapr/GetSecret", {"store_name": "sec", "key": "hidden"}), "PERMISSION_DENIED")
        self.refused(client.call("Dapr/GetSecret", {"store_name": "none", "key": "x"}), "INVALID_ARGUMENT")
        self.assertEqual(self.ok(client.call("Dapr/GetBulkSecret", {"store_name": "sec"})),
                         {"data": {"shown": {"secrets": {"shown": "yes"}}}})

    @tag("debug")
    def test_metadata_is_the_same_over_both(self):
        a = self.sidecar("app", resources=store("state.sqlite"), flags=["--app-max-concurrency", "7"])
        client = self.client(a)
        self.ok(client.call("Dapr/SetMetadata", {"key": "color", "value": "blue"}))
        self.ok(client.call("Dapr/SetMetadata", {"key": "", "value": "nothing"}))
        self.assertEqual(a.call("PUT", "/v1.0/metadata/bytes", body=b"a\xffb\x00c").status, 204)
        over_grpc, over_http = self.ok(client.call("Dapr/GetMetadata")), a.call("GET", "/v1.0/metadata").json
        self.assertEqual(over_grpc["extended_metadata"]["color"], "blue")
        self.assertEqual(over_grpc["extended_metadata"]["bytes"], "a\ufffdb\ufffdc")
        self.assertNotIn("", over_grpc["extended_metadata"])
        self.assertEqual(over_grpc["id"], over_http["id"])
        self.assertEqual(over_grpc["registered_components"], over_http["components"])
        self.assertEqual(over_grpc["enabled_features"], over_http["enabledFeatures"])
        self.assertEqual(over_grpc["app_connection_properties"]["max_concurrency"], 7)
        self.assertEqual(over_grpc["actor_runtime"]["placement"], over_http["actorRuntime"]["placement"])

    @tag("debug")
    def test_shutdown(self):
        a = self.sidecar("app")
        client = self.client(a)
        a.may_end = True
        self.assertEqual(self.ok(client.call("Dapr/Shutdown")), {})
        self.assertEqual(a.wait_exit(), 0)

    @tag("debug")
    def test_bad_messages_are_refused_and_others_served(self):
        a = self.sidecar("app", resources=store("state.in-memory"), flags=["--max-body-size", "64Ki"])
        client = self.client(a)
        get = new("dapr.proto.runtime.v1.GetStateRequest", {"store_name": "st", "key": "k"}).SerializeToString()
        for bad in (b"\xff\xff\xff", b"\x0a\x02\xc3\x28", b"\x0a\x02a\x00", b"\x12\x7f"):
            self.assertEqual(client.raw("Dapr/GetState", bad).code, "INTERNAL")
            self.assertEqual(client.raw("Dapr/GetState", get).code, "OK")
        states = [{"key": "k", "value": b"x" * 70000}]
        self.assertEqual(client.call("Dapr/SaveState", {"store_name": "st", "states": states}).code, "RESOURCE_EXHAUSTED")
        states = [{"key": "k%d" % i, "value": b"x" * 40000} for i in range(2)]
        for state in states:
            self.ok(client.call("Dapr/SaveState", {"store_name": "st", "states": [state]}))
        many = client.call("Dapr/GetBulkState", {"store_name": "st", "keys": ["k0", "k1"]})
        self.refused(many, "RESOURCE_EXHAUSTED", text="larger than max")
        self.assertEqual(len(self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "k1"}))["data"]), 40000)

    def test_more_items_than_memory_for_them(self):
        """Two bytes on the wire make an item; what they may take is bounded."""
        a = self.sidecar("app", resources={**store("state.in-memory"), "ps.yaml": component("ps", "pubsub.in-memory")})
        client = self.client(a)
        self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "k"}))
        requests = (("Dapr/GetBulkState", b"\x0a\x02st" + b"\x12\x00" * 2000000),
                    ("Dapr/SaveState", b"\x0a\x02st" + b"\x12\x00" * 2000000),
                    ("Dapr/BulkPublishEvent", b"\x0a\x02ps\x12\x01t" + b"\x1a\x00" * 2000000))
        for name, request in requests:
            self.assertIn(client.raw(name, request).code, ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
        entries = b"".join(b"\x1a\x08\x0a\x06%06d" % n for n in range(400000))
        self.assertEqual(client.raw("Dapr/BulkPublishEvent", b"\x0a\x02ps\x12\x01t" + entries).code, "RESOURCE_EXHAUSTED")
        self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "k"}))

    @tag("debug")
    def test_a_cancelled_call_leaves_nothing(self):
        a = self.sidecar("app", resources=store("state.sqlite"))
        client = self.client(a)
        request = new("dapr.proto.runtime.v1.SaveStateRequest",
                      {"store_name": "st", "states": [{"key": "k", "value": b"x" * 100000}]}).SerializeToString()
        calls = [client.start("Dapr/SaveState", request) for _ in range(50)]
        for call in calls[::2]:
            call.cancel()
        self.assertEqual({client.outcome(call).code for call in calls[1::2]}, {"OK"})
        gone = Client(a.grpc)
        for _ in range(20):
            gone.start("Dapr/SaveState", request)
        gone.close()
        self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "k"}))

    @tag("debug")
    def test_what_waits_for_its_store_ends_with_the_deadline_and_the_client(self):
        a = self.sidecar("app", resources={
            **store("state.sqlite"), "mem.yaml": component("mem", "state.in-memory")})
        client = self.client(a)
        save = {"store_name": "st", "states": [{"key": "k", "value": b"1"}]}
        self.ok(client.call("Dapr/SaveState", save))
        lock = sqlite3.connect(os.path.join(a.dir, "s.db"), isolation_level=None)
        self.addCleanup(lock.close)
        lock.execute("BEGIN EXCLUSIVE")
        self.assertEqual(client.call("Dapr/SaveState", save, timeout_s=0.3).code, "DEADLINE_EXCEEDED")
        waiting = client.start("Dapr/SaveState", new("dapr.proto.runtime.v1.SaveStateRequest", save).SerializeToString())
        self.ok(client.call("Dapr/SaveState", {**save, "store_name": "mem"}))
        waiting.cancel()
        counted = ('dapr_grpc_io_server_completed_rpcs{app_id="app",grpc_server_method="/dapr.proto.runtime.v1.Dapr/'
                   'SaveState",grpc_server_status="%s"} 1')
        wait_for("the deadline", lambda: counted % "DEADLINE_EXCEEDED" in a.metrics() or counted % "CANCELLED" in a.metrics())
        lock.execute("COMMIT")
        self.ok(client.call("Dapr/SaveState", save))
        self.assertEqual(self.ok(client.call("Dapr/GetState", {"store_name": "st", "key": "k"}))["data"], b"1")

    @tag("debug")
    def test_calls_are_counted_and_logged(self):
        a = self.sidecar("app", resources=store("state.in-memory"), flags=["--enable-api-logging"])
        client = self.client(a)
        self.ok(client.call("Dapr/SaveState", {"store_name": "st", "states": [{"key": "k", "value": b"v"}]}))
        client.call("Dapr/GetState", {"store_name": "none", "key": "k"})
        wait_for("metrics", lambda: 'dapr_grpc_io_server_completed_rpcs{app_id="app",grpc_server_method="/dapr.proto.'
                                    'runtime.v1.Dapr/GetState",grpc_server_status="INVALID_ARGUMENT"} 1' in a.metrics())
        metrics = a.metrics()
        self.assertIn('dapr_component_state_count{app_id="app",component="st",namespace="",operation="set",success="true"} 1',
                      metrics)
        a.wait_log("gRPC API Called", 2)
        self.assertIn("/dapr.proto.runtime.v1.Dapr/SaveState", a.log())
