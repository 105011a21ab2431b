"""Bindings: cron, http and localstorage, to and from apps over HTTP and gRPC."""
import base64
import json
import os
import signal
import ssl
import threading
import time
from concurrent import futures

import grpc_client
from grpc_client import Client, needs_grpc
from harness import Case, Port, Reply, component, tag, wait_for
from test_invoke import authority


def cron(name="tick", schedule="@every 50ms", **metadata):
    return component(name, "bindings.cron", {"schedule": schedule, **metadata})


class Input(Case):
    @tag("debug", "tsan")
    def test_cron_fires_at_an_app_that_wants_it(self):
        app = self.app(lambda r: Reply(200, b"done"))
        a = self.sidecar("app", app, resources={"a.yaml": cron()})
        wait_for("events", lambda: len([r for r in app.seen("/tick") if r.method == "POST"]) >= 3)
        asked, *events = app.seen("/tick")
        self.assertEqual(asked.method, "OPTIONS")
        self.assertEqual(asked.header("Content-Type"), "application/json")
        self.assertEqual({r.method for r in events}, {"POST"})
        self.assertEqual((events[0].body, events[0].header("Content-Type")), (b"", "application/json"))
        self.assertEqual(events[0].header("Timezone"), "Local")
        self.assertRegex(events[0].header("Readtimeutc"), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC$")
        metrics = a.metrics()
        self.assertRegex(metrics, r'dapr_component_input_binding_count\{[^}]*component="tick"[^}]*success="true"')
        self.assertIn("dapr_component_input_binding_latencies", metrics)
        listed = {c["name"]: c.get("capabilities") for c in a.call("GET", "/v1.0/metadata").json["components"]}
        self.assertEqual(listed, {"tick": ["INPUT_BINDING"]})

    @tag("debug")
    def test_who_does_not_want_it_gets_nothing(self):
        app = self.app(lambda r: Reply(404 if r.path == "/no" else 405 if r.method == "OPTIONS" else 200))
        resources = {"a.yaml": cron("no"), "b.yaml": cron("yes"), "c.yaml": cron("out", direction="output"),
                     "d.yaml": cron("in", direction="input", route="/some/where?x=1"),
                     "e.yaml": cron("foreign") + "scopes: [other]\n"}
        self.sidecar("app", app, resources=resources)
        wait_for("events", lambda: len(app.seen("/yes")) >= 5 and len(app.seen("/some/where")) >= 5)
        self.assertEqual([r.method for r in app.seen("/no")], ["OPTIONS"])
        self.assertEqual({(r.method, r.query) for r in app.seen("/some/where")}, {("POST", "x=1")})
        self.assertEqual(app.seen("/out") + app.seen("/foreign"), [])

    @tag("debug", "tsan")
    def test_an_app_that_refuses_or_is_away_gets_the_next_ones(self):
        status = [500]
        app = self.app(lambda r: Reply(status[0] if r.method == "POST" else 200))
        a = self.sidecar("app", app, resources={"a.yaml": cron()})

        def posts():
            return len([r for r in app.seen("/tick") if r.method == "POST"])
        wait_for("refused events", lambda: posts() >= 3)
        wait_for("their count", lambda: 'success="false"' in a.metrics())
        app.down()
        before = posts()
        wait_for("the loss to be noticed", lambda: a.call("GET", "/v1.0/healthz").status == 204)
        status[0] = 200
        app.up()
        wait_for("events again", lambda: posts() >= before + 3)

    @tag("debug")
    def test_sidecar_first_app_later(self):
        app = self.app(is_up=False)
        self.sidecar("app", app, is_ready=False, resources={"a.yaml": cron()}).wait_ready("/v1.0/healthz/outbound")
        app.up()
        wait_for("events", lambda: len(app.seen("/tick")) >= 3)

    @tag("debug", "tsan")
    def test_nothing_while_the_app_is_unwell(self):
        well = [True]
        app = self.app(lambda r: Reply(200 if r.path != "/alive" or well[0] else 503))
        flags = ["--enable-app-health-check", "--app-health-check-path", "/alive", "--app-health-probe-interval", "1",
                 "--app-health-threshold", "1"]
        self.sidecar("app", app, resources={"a.yaml": cron()}, flags=flags)

        def options():
            return len([r for r in app.seen("/tick") if r.method == "OPTIONS"])
        wait_for("events", lambda: len(app.seen("/tick")) >= 3)
        well[0] = False

        def is_quiet():
            before = len(app.seen("/tick"))
            probes = len(app.seen("/alive"))
            wait_for("a probe", lambda: len(app.seen("/alive")) > probes)
            return len(app.seen("/tick")) == before
        wait_for("silence", is_quiet)
        well[0] = True
        wait_for("the question again", lambda: options() == 2)
        before = len(app.seen("/tick"))
        wait_for("events again", lambda: len(app.seen("/tick")) >= before + 3)

    @tag("debug")
    def test_a_hung_app_does_not_hold_shutdown_up(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def handler(request):
            if request.method == "POST":
                release.wait(60)
            return Reply(200)
        app = self.app(handler)
        a = self.sidecar("app", app, resources={"a.yaml": cron()}, flags=["--dapr-graceful-shutdown-seconds", "1"])
        wait_for("events", lambda: len(app.seen("/tick")) >= 3)
        a.signal(signal.SIGTERM)
        self.assertIn(a.wait_exit(), (0, 1))

    @tag("debug", "tsan")
    def test_components_that_come_change_and_go(self):
        app = self.app()
        a = self.sidecar("app", app, resources={"a.yaml": cron("first")})
        wait_for("events", lambda: len(app.seen("/first")) >= 3)

        def names():
            return {c["name"] for c in a.call("GET", "/v1.0/metadata").json["components"]}
        for name in ("one", "two"):  # what is no binding disturbs none
            a.write("s.yaml", component(name, "state.in-memory"))
            wait_for("the store", lambda: names() == {"first", name})
            before = len(app.seen("/first"))
            wait_for("more events", lambda: len(app.seen("/first")) > before + 2)
        self.assertEqual([r.method for r in app.seen("/first")].count("OPTIONS"), 1)
        a.remove("s.yaml")
        a.write("b.yaml", cron("second"))
        wait_for("events of the second", lambda: len(app.seen("/second")) >= 3)
        a.remove("a.yaml")
        wait_for("the reload", lambda: names() == {"second"})

        def is_gone():
            first, second = len(app.seen("/first")), len(app.seen("/second"))
            wait_for("the second", lambda: len(app.seen("/second")) > second + 3)
            return len(app.seen("/first")) == first
        wait_for("silence of the first", is_gone)

    def test_the_app_token_and_the_limit_concern_events_too(self):
        at_once, most, lock = [0], [0], threading.Lock()

        def handler(request):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.002)  # others become due meanwhile, if the limit did not hold them back: cron goes by time
            with lock:
                at_once[0] -= 1
            return Reply(200)
        app = self.app(handler)
        self.sidecar("app", app, resources={"a.yaml": cron("a", "@every 5ms"), "b.yaml": cron("b", "@every 5ms")},
                     env={"APP_API_TOKEN": "s3cret"}, flags=["--app-max-concurrency", "1"])
        wait_for("events", lambda: len(app.seen("/a")) >= 5 and len(app.seen("/b")) >= 5)
        self.assertEqual(most[0], 1)
        self.assertEqual({r.header("dapr-api-token") for r in app.seen("/a") if r.method == "POST"}, {"s3cret"})

    def test_bad_schedules_say_component_and_field(self):
        a = self.sidecar("app", is_started=False, resources={"a.yaml": cron(schedule="61 * * * *")})
        a.launch()
        a.may_end = True
        self.assertEqual(a.wait_exit(), 1)
        self.assertIn("component tick (bindings.cron/v1", a.log())
        self.assertIn("invalid schedule format '61 * * * *'", a.log())
        tolerant = cron(schedule="").replace("spec:\n", "spec:\n  ignoreErrors: true\n")
        b = self.sidecar("other", resources={"a.yaml": tolerant})
        self.assertEqual(b.call("GET", "/v1.0/metadata").json.get("components", []), [])


class Output(Case):
    def invoke(self, sidecar, name, operation, data=None, **metadata):
        return sidecar.call_json("POST", "/v1.0/bindings/" + name,
                                 {"operation": operation, "data": data, "metadata": {k.replace("_", "-"): v for k, v in metadata.items()}})

    def error(self, answer, status=500):
        self.assertEqual(answer.status, status, answer)
        return answer.json["errorCode"], answer.json["message"]

    def files(self, **more):
        root = os.path.join(self.dir, "files")
        return root, self.sidecar("app", resources={"f.yaml": component("fl", "bindings.localstorage", {"rootPath": root})}, **more)

    @tag("debug", "tsan")
    def test_files(self):
        root, a = self.files()
        answer = self.invoke(a, "fl", "create", "hello", fileName="deep/a.txt")
        self.assertEqual((answer.status, answer.json), (200, {"fileName": "deep/a.txt"}))
        with open(os.path.join(root, "deep/a.txt")) as file:
            self.assertEqual(file.read(), "hello")
        picture = bytes(range(256)) * 10
        self.invoke(a, "fl", "create", base64.b64encode(picture).decode(), fileName="p.png")
        self.assertEqual(self.invoke(a, "fl", "get", fileName="p.png").body, picture)
        self.invoke(a, "fl", "create", {"b": 1, "a": "<"}, fileName="o.json")
        self.assertEqual(self.invoke(a, "fl", "get", fileName="o.json").body, b'{"a":"\\u003c","b":1}')
        self.assertEqual(self.invoke(a, "fl", "list").json, [os.path.join(root, n) for n in ("deep/a.txt", "o.json", "p.png")])
        gone = self.invoke(a, "fl", "delete", fileName="p.png")
        self.assertEqual((gone.status, gone.body), (204, b""))
        self.assertFalse(os.path.exists(os.path.join(root, "p.png")))
        made_up = self.invoke(a, "fl", "create", "x").json["fileName"]
        self.assertEqual(self.invoke(a, "fl", "get", fileName=made_up).body, b"x")
        put = a.call_json("PUT", "/v1.0/bindings/fl", {"operation": "get", "metadata": {"fileName": made_up}})
        self.assertEqual(put.body, b"x")

    @tag("debug")
    def test_no_file_outside_is_reached(self):
        root, a = self.files()
        with open(os.path.join(self.dir, "secret"), "w") as file:
            file.write("s3cret")
        os.symlink("../secret", os.path.join(root, "link"))
        os.symlink(self.dir, os.path.join(root, "up"))
        for name in ("../secret", "../../" * 10 + "etc/passwd", "/etc/passwd", "link", "up/secret", "x/../../secret",
                     os.path.join(self.dir, "secret"), "..", "a\0b"):
            self.assertEqual(self.error(self.invoke(a, "fl", "get", fileName=name))[0], "ERR_INVOKE_OUTPUT_BINDING", name)
            self.invoke(a, "fl", "delete", fileName=name)
        self.invoke(a, "fl", "create", "x", fileName="../../secret")
        self.invoke(a, "fl", "create", "x", fileName="up/secret")
        with open(os.path.join(self.dir, "secret")) as file:
            self.assertEqual(file.read(), "s3cret")
        self.assertEqual(sorted(os.listdir(self.dir)), sorted(set(os.listdir(self.dir)) | {"files", "secret"}))

    @tag("debug", "tsan")
    def test_http(self):
        def handler(request):
            status = int(request.query or 200)
            return Reply(status, b"back:" + request.body, [("X-Back", "1"), ("x-back", "2")])
        server = self.app(handler)
        web = component("web", "bindings.http", {"url": "http://localhost:%d/base" % server.port, "securityToken": "t",
                                                 "securityTokenHeader": "X-Token"})
        a = self.sidecar("app", resources={"w.yaml": web})
        answer = self.invoke(a, "web", "post", {"n": 1}, path="/sub", X_Mine="m")
        self.assertEqual((answer.status, answer.body), (200, b'back:{"n":1}'))
        self.assertEqual(answer.header("metadata.statusCode"), "200")
        self.assertEqual(answer.header("metadata.X-Back"), "1, 2")
        self.assertEqual(answer.header("Content-Type"), "application/json")
        seen = server.requests[-1]
        self.assertEqual((seen.method, seen.path), ("POST", "/base/sub"))
        self.assertEqual((seen.header("X-Mine"), seen.header("X-Token")), ("m", "t"))
        self.assertEqual(self.error(self.invoke(a, "web", "get", path="?404")),
                         ("ERR_INVOKE_OUTPUT_BINDING", "error invoking output binding web: received status code 404"))
        self.assertEqual(self.invoke(a, "web", "get", path="?404", errorIfNot2XX="false").status, 200)
        large = "x" * (3 << 20)
        answer = self.invoke(a, "web", "put", large)
        self.assertEqual(len(answer.body), len(large) + 7)
        traced = a.call("POST", "/v1.0/bindings/web", [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                                                       ("baggage", "k=v")], json.dumps({"operation": "get"}).encode())
        self.assertEqual(traced.status, 200)
        self.assertIn("0af7651916cd43dd8448eb211c80319c", server.requests[-1].header("traceparent"))
        self.assertEqual(server.requests[-1].header("baggage"), "k=v")
        metrics = a.metrics()
        self.assertRegex(metrics, r'dapr_component_output_binding_count\{[^}]*component="web"[^}]*operation="get"[^}]*success="false"')
        self.assertRegex(metrics, r'dapr_component_output_binding_count\{[^}]*component="web"[^}]*operation="put"[^}]*success="true"')

    @tag("debug", "tsan")
    def test_a_server_away_slow_and_back(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def handler(request):
            if request.query == "hang":
                release.wait(60)
            return Reply(200, b"ok")
        server = self.app(handler, is_up=False)
        web = component("web", "bindings.http", {"url": "http://127.0.0.1:%d" % server.port, "responseTimeout": "300ms"})
        a = self.sidecar("app", resources={"w.yaml": web})
        code, message = self.error(self.invoke(a, "web", "get"))
        self.assertEqual(code, "ERR_INVOKE_OUTPUT_BINDING")
        self.assertIn("GET http://127.0.0.1:%d" % server.port, message)
        server.up()
        self.assertEqual(self.invoke(a, "web", "get").status, 200)
        self.assertIn("deadline exceeded", self.error(self.invoke(a, "web", "get", path="?hang"))[1])
        for _ in range(3):  # kept connections of a server that has gone and come back
            server.drop_connections()
            self.assertEqual(self.invoke(a, "web", "get").status, 200)

    @tag("debug")
    def test_https_with_an_own_authority_and_a_client_certificate(self):
        pem = authority(self.dir)

        def file(name):
            return os.path.join(self.dir, name)
        server = self.app(lambda r: Reply(200, b"sealed"))
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(file("server.pem"), file("server.key"))
        server.tls.load_verify_locations(file("ca.pem"))
        server.tls.verify_mode = ssl.CERT_REQUIRED
        url = "https://localhost:%d/x" % server.port
        client = {"MTLSClientCert": file("client.pem"), "MTLSClientKey": file("client.key")}
        kinds = {"both": {"MTLSRootCA": pem["ca.pem"], **client}, "nobody": {"MTLSRootCA": file("ca.pem")}, "stranger": client}
        a = self.sidecar("app", resources={k + ".yaml": component(k, "bindings.http", {"url": url, **m}) for k, m in kinds.items()})
        answer = self.invoke(a, "both", "get")
        self.assertEqual((answer.status, answer.body), (200, b"sealed"))
        self.assertEqual(server.requests[-1].header("Host"), "localhost:%d" % server.port)
        self.assertEqual(self.invoke(a, "both", "post", "x" * 100000).status, 200)
        for name in ("nobody", "stranger"):
            self.assertEqual(self.error(self.invoke(a, name, "get"))[0], "ERR_INVOKE_OUTPUT_BINDING")
        self.assertEqual(len(server.requests), 2)

    @tag("debug")
    def test_what_is_not_there_is_said(self):
        root, a = self.files()
        self.assertEqual(self.error(self.invoke(a, "none", "get")),
                         ("ERR_INVOKE_OUTPUT_BINDING", "error invoking output binding none: couldn't find output binding none"))
        self.assertEqual(self.error(self.invoke(a, "fl", "")),
                         ("ERR_INVOKE_OUTPUT_BINDING", "error invoking output binding fl: operation field is missing from request"))
        self.assertEqual(self.error(self.invoke(a, "fl", "fly"))[1],
                         "error invoking output binding fl: binding fl does not support operation fly. "
                         "supported operations:create get list delete")
        for body in (b"", b"{", b"[]", b"7", b'{"operation":7}', b'{"operation":"get","metadata":[]}',
                     b'{"operation":"get","metadata":{"fileName":7}}'):
            code, message = self.error(a.call("POST", "/v1.0/bindings/fl", body=body), 400)
            self.assertEqual((code, message[:31]), ("ERR_MALFORMED_REQUEST", "failed deserializing HTTP body:"), body)

    @tag("debug")
    def test_large_bodies(self):
        root, a = self.files()
        text = "ab-" * (1 << 20)
        self.assertEqual(self.invoke(a, "fl", "create", text, fileName="big").status, 200)
        self.assertEqual(self.invoke(a, "fl", "get", fileName="big").body.decode(), text)
        self.assertEqual(self.invoke(a, "fl", "create", "x" * (5 << 20), fileName="big").status, 400)
        before = a.rss_kib()
        for _ in range(20):
            self.assertEqual(self.invoke(a, "fl", "get", fileName="big").status, 200)
        if os.environ.get("OUTRIGGER_BUILD", "release") == "release":
            self.assertLess(a.rss_kib(), before + 24 * 1024)

    def test_a_closed_api_and_a_token(self):
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: c\nspec:\n  api:\n    allowed:\n"
                  "    - name: state\n      version: v1\n      protocol: http\n")
        root, a = self.files(config=config, env={"DAPR_API_TOKEN": "tok"})
        self.assertEqual(self.invoke(a, "fl", "list").status, 401)
        answer = a.call("POST", "/v1.0/bindings/fl", [("dapr-api-token", "tok")], b'{"operation":"list"}')
        self.assertEqual(answer.status, 404)


@needs_grpc
class Grpc(Case):
    def client(self, sidecar):
        client = Client(sidecar.grpc)
        self.addCleanup(client.close)
        return client

    @tag("debug", "tsan")
    def test_output(self):
        root = os.path.join(self.dir, "files")
        server = self.app(lambda r: Reply(200, b"back", [("X-Back", "1")]))
        a = self.sidecar("app", resources={"f.yaml": component("fl", "bindings.localstorage", {"rootPath": root}),
                                           "w.yaml": component("web", "bindings.http", {"url": "http://127.0.0.1:%d" % server.port})})
        client = self.client(a)
        made = client.call("Dapr/InvokeBinding", {"name": "fl", "operation": "create", "data": b"\x00\xff",
                                                  "metadata": {"fileName": "b"}})
        self.assertEqual((made.code, made.response["data"]), ("OK", b'{"fileName":"b"}'))
        got = client.call("Dapr/InvokeBinding", {"name": "fl", "operation": "get", "metadata": {"fileName": "b"}})
        self.assertEqual(got.response, {"data": b"\x00\xff"})
        web = client.call("Dapr/InvokeBinding", {"name": "web", "operation": "get"})
        self.assertEqual(web.response["data"], b"back")
        self.assertEqual(web.response["metadata"]["statusCode"], "200")
        self.assertEqual(web.response["metadata"]["X-Back"], "1")
        for request, text in (({"name": "none", "operation": "get"}, "couldn't find output binding none"),
                              ({"name": "fl"}, "operation field is missing from request"),
                              ({"name": "fl", "operation": "fly"}, "does not support operation fly")):
            refused = client.call("Dapr/InvokeBinding", request)
            self.assertEqual((refused.code, refused.reason), ("INTERNAL", "ERR_INVOKE_OUTPUT_BINDING"))
            self.assertIn(text, refused.message)

    def grpc_app(self, handlers):
        """grpcio's server; handlers: "AppCallback/Method" -> dict of the request -> dict of the answer."""
        import grpc
        server = grpc.server(futures.ThreadPoolExecutor(8))
        for name, run in handlers.items():
            method = grpc_client.find_method(name)

            def answer(data, context, method=method, run=run):
                request = grpc_client.plain(grpc_client.read(method.input_type, data))
                return grpc_client.new(method.output_type, run(request)).SerializeToString()
            handler = grpc.unary_unary_rpc_method_handler(answer)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
                method.containing_service.full_name, {method.name: handler}),))
        port = Port()
        self.addCleanup(port.release)
        server.add_insecure_port("127.0.0.1:%d" % port.number)
        server.start()
        self.addCleanup(lambda: server.stop(0).wait())
        return port.number

    @tag("debug", "tsan")
    def test_events_and_what_their_answers_ask_for(self):
        root, events = os.path.join(self.dir, "files"), []

        def on_event(request):
            events.append(request)
            n = len(events)
            if n > 2:
                return {}
            return {"store_name": "st", "states": [{"key": "n%d" % n, "value": b'"v%d"' % n}],
                    "to": ["fl", "web"], "data": b'{"n":%d}' % n, "concurrency": n - 1}
        posted = self.app(lambda r: Reply(200))
        port = self.grpc_app({"AppCallback/ListInputBindings": lambda r: {"bindings": ["tick"]},
                              "AppCallback/OnBindingEvent": on_event})
        resources = {"a.yaml": cron(), "b.yaml": cron("unwanted"), "s.yaml": component("st", "state.in-memory"),
                     "f.yaml": component("fl", "bindings.localstorage", {"rootPath": root}),
                     "w.yaml": component("web", "bindings.http", {"url": "http://127.0.0.1:%d/x" % posted.port})}
        a = self.sidecar("app", port, resources=resources, flags=["--app-protocol", "grpc"])
        wait_for("events", lambda: len(events) >= 3)
        self.assertEqual({e["name"] for e in events}, {"tick"})
        self.assertEqual(events[0]["metadata"]["timeZone"], "Local")
        wait_for("state", lambda: a.call("GET", "/v1.0/state/st/n2").body == b'"v2"')
        self.assertEqual(a.call("GET", "/v1.0/state/st/n1").body, b'"v1"')
        wait_for("what was sent on", lambda: len(posted.seen("/x")) >= 2 and len(os.listdir(root)) >= 2)
        self.assertEqual(sorted(r.body for r in posted.seen("/x")), [b'{"n":1}', b'{"n":2}'])
        self.assertEqual({r.method for r in posted.seen("/x")}, {"POST"})

    @tag("debug")
    def test_an_app_that_knows_nothing_of_bindings_or_refuses(self):
        port = self.grpc_app({"AppCallback/OnTopicEvent": lambda r: {}})
        a = self.sidecar("app", port, resources={"a.yaml": cron()}, flags=["--app-protocol", "grpc"])
        a.wait_log("does not want an input binding")

        def refuse(request):
            raise ValueError("not today")
        port = self.grpc_app({"AppCallback/OnBindingEvent": refuse})
        b = self.sidecar("other", port, resources={"a.yaml": cron(direction="input")}, flags=["--app-protocol", "grpc"])
        wait_for("refusals", lambda: 'success="false"' in b.metrics())
        self.assertEqual(b.call("GET", "/v1.0/healthz").status, 204)
