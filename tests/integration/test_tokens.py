"""DAPR_API_TOKEN_FILE and APP_API_TOKEN_FILE: tokens that change while sidecars run, and cross no hop."""
import os

from grpc_app import GrpcApp
from grpc_client import Client as GrpcClient
from grpc_client import needs_grpc
from h2raw import Peer
from harness import Case, all_headers, component, reply_json, tag, wait_for

UNAUTHENTICATED = 16


class Tokens(Case):
    def put(self, name, text, how="rename"):
        """As mounted secrets change (a link turned elsewhere), as deployment tools do, or in place."""
        path = self.path(name)
        if how == "place":
            with open(path, "w") as file:
                file.write(text)
            return path
        target = self.path("%s.%d" % (name, len(os.listdir(self.dir))))
        with open(target, "w") as file:
            file.write(text)
        if how == "link":
            os.symlink(target, path + "~")
            target = path + "~"
        os.replace(target, path)
        return path


class Api(Tokens):
    def over_http(self, sidecar, *headers):
        return sidecar.call("GET", "/v1.0/metadata", headers).status

    def over_grpc(self, sidecar, *headers):
        with Peer(sidecar.grpc) as peer:
            return peer.call("/dapr.proto.runtime.v1.Dapr/GetMetadata", b"", headers).status

    def assert_token(self, sidecar, right, *wrong):
        self.assertEqual(self.over_http(sidecar, ("dapr-api-token", right)), 200)
        self.assertEqual(self.over_grpc(sidecar, ("dapr-api-token", right)), 0)
        for token in wrong:
            self.assertEqual(self.over_http(sidecar, ("dapr-api-token", token)), 401)
            self.assertEqual(self.over_grpc(sidecar, ("dapr-api-token", token)), UNAUTHENTICATED)
        self.assertEqual(self.over_http(sidecar), 401)
        self.assertEqual(self.over_grpc(sidecar), UNAUTHENTICATED)

    @tag("debug", "tsan")
    def test_the_file_goes_before_the_variable_and_may_change(self):
        path = self.put("token", "one\n", "link")
        a = self.sidecar("app", env={"DAPR_API_TOKEN_FILE": path, "DAPR_API_TOKEN": "set"})
        self.assert_token(a, "one", "set")
        for count, (token, how) in enumerate((("two-k7Qx", "link"), ("three-k7Qx", "rename"), ("four-k7Qx", "place")), 1):
            self.put("token", token + "\n", how)
            a.wait_log("a token has changed", count)
            self.assert_token(a, token, "one" if count > 1 else "set", "")
        self.assertEqual((a.health(), a.health("/v1.0/healthz/outbound")), (204, 204))
        self.assertNotIn("k7Qx", a.log())

    @tag("debug")
    def test_a_bad_file_opens_nothing(self):
        path = self.put("token", "one")
        a = self.sidecar("app", env={"DAPR_API_TOKEN_FILE": path})
        for count, text in enumerate(("", "a\nb"), 1):
            self.put("token", text)
            a.wait_log("the former token stays", count)
            self.assert_token(a, "one", "", "a")
            self.put("token", "between%d" % count)  # well again, and the next fault is told of, too
            a.wait_log("a token has changed", 2 * count - 1)
            self.put("token", "one")
            a.wait_log("a token has changed", 2 * count)
        os.unlink(path)
        a.wait_log("the former token stays", 3)
        self.assert_token(a, "one", "")

    @tag("debug")
    def test_no_start_without_the_token_that_was_asked_for(self):
        for name in ("DAPR_API_TOKEN_FILE", "APP_API_TOKEN_FILE"):
            for path, said in ((self.path("nowhere"), "No such file"), (self.put("empty", " \n"), "no token is in it"),
                               (self.put("lines", "a\nb"), "more than one line"), (self.dir, "not a regular file")):
                a = self.sidecar("app", is_ready=False, env={name: path})
                self.assertEqual(a.wait_exit(), 1)
                self.assertIn("%s: %s" % (name, path), a.log())
                self.assertIn(said, a.log())
                a.may_end = True


class ToTheApp(Tokens):
    @tag("debug", "tsan")
    def test_the_app_is_shown_the_newest_one(self):
        path = self.put("token", "one\n")
        app = self.app(subscriptions=[{"pubsubname": "ps", "topic": "t", "route": "/event"}])
        a = self.sidecar("caller")
        b = self.sidecar("callee", app, env={"APP_API_TOKEN_FILE": path, "APP_API_TOKEN": "set"},
                         resources={"ps.yaml": component("ps", "pubsub.in-memory")})
        for count, token in enumerate(("one", "two", "three")):
            if count:
                self.put("token", token, ("link", "rename")[count % 2])
                b.wait_log("a token has changed", count)
            self.assertEqual(a.invoke("callee", "x%d" % count).status, 200)
            self.assertEqual(b.publish("ps", "t", count).status, 204)
            wait_for("the event", lambda n=count: len(app.seen("/event")) > n)
            for request in (app.seen("/x%d" % count)[0], app.seen("/event")[count]):
                self.assertEqual(all_headers(request.headers, "dapr-api-token"), [token])

    @tag("debug", "tsan")
    @needs_grpc
    def test_a_grpc_app_is_shown_the_newest_one(self):
        path = self.put("token", "one\n")
        app = GrpcApp({"OnInvoke": lambda call: {"data": {"value": b"hi"}, "content_type": "text/plain"}})
        self.started.append(app.up())
        a = self.sidecar("caller")
        b = self.sidecar("callee", app, flags=["--app-protocol", "grpc"], env={"APP_API_TOKEN_FILE": path})
        for count, token in enumerate(("one", "two")):
            if count:
                self.put("token", token)
                b.wait_log("a token has changed", count)
            self.assertEqual(a.invoke("callee", "x").status, 200)
            self.assertEqual(app.calls("OnInvoke")[count].metadata["dapr-api-token"], token)


class Hops(Tokens):
    """Pitfall 12, whichever way a call goes: what a client shows its sidecar, and what a sidecar shows its app, stay there."""

    def setUp(self):
        super().setUp()
        self.envs = {name: {"DAPR_API_TOKEN_FILE": self.put(name + "-api", "api-of-%s" % name),
                            "APP_API_TOKEN_FILE": self.put(name + "-app", "app-of-%s" % name)} for name in ("caller", "callee")}

    def token(self, name):
        return [("dapr-api-token", "api-of-" + name)]

    def assert_only(self, requests, token):
        self.assertTrue(requests)
        for request in requests:
            shown = [v for _, v in request.headers if "-of-" in v]
            self.assertEqual(shown, [token] if token else [], request.headers)

    @tag("debug")
    def test_over_http(self):
        near, far, outside = self.app(), self.app(), self.app()
        a = self.sidecar("caller", near, env=self.envs["caller"])
        self.sidecar("callee", far, env=self.envs["callee"])
        self.assertEqual(a.invoke("callee", "x", headers=self.token("caller")).status, 200)
        self.assertEqual(a.call("GET", "/y", self.token("caller") + [("dapr-app-id", "callee")]).status, 200)
        self.assertEqual(a.invoke("caller", "x", headers=self.token("caller")).status, 200)
        url = "/v1.0/invoke/http://127.0.0.1:%d/method/z" % outside.port
        self.assertEqual(a.call("GET", url, self.token("caller")).status, 200)
        self.assert_only(far.seen("/x") + far.seen("/y"), "app-of-callee")
        self.assert_only(near.seen("/x"), "app-of-caller")
        self.assert_only(outside.seen("/z"), None)

    @tag("debug")
    @needs_grpc
    def test_over_grpc(self):
        app = GrpcApp({"OnInvoke": lambda call: {"data": {"value": b"hi"}, "content_type": "text/plain"}})
        self.started.append(app.up())
        a = self.sidecar("caller", env=self.envs["caller"])
        self.sidecar("callee", app, flags=["--app-protocol", "grpc"], env=self.envs["callee"])
        client = GrpcClient(a.grpc)
        request = {"id": "callee", "message": {"method": "m", "data": {"value": b"x"}}}
        answer = client.call("Dapr/InvokeService", request, self.token("caller"))
        self.assertEqual(answer.code, "OK", answer.message)
        self.assertEqual(a.invoke("callee", "m", headers=self.token("caller")).status, 200)
        # proxied: the app's own method, as it is
        with Peer(a.grpc) as peer:
            stream = peer.call("/dapr.proto.runtime.v1.AppCallback/OnInvoke", b"",
                               self.token("caller") + [("dapr-app-id", "callee")])
            self.assertEqual(stream.status, 0)
        calls = app.calls("OnInvoke")
        self.assertEqual(len(calls), 3)
        for call_ in calls:
            self.assertEqual([v for v in call_.metadata.values() if "-of-" in str(v)], ["app-of-callee"], call_.metadata)

    @tag("debug")
    def test_what_the_app_echoes_is_its_own(self):
        """A sidecar adds its app's token to no answer."""
        app = self.app(lambda request: reply_json({"seen": request.header("dapr-api-token")}))
        a = self.sidecar("caller", env=self.envs["caller"])
        self.sidecar("callee", app, env=self.envs["callee"])
        answer = a.invoke("callee", "x", headers=self.token("caller"))
        self.assertEqual(answer.json, {"seen": "app-of-callee"})
        self.assertEqual([v for _, v in answer.headers if "-of-" in v], [])
