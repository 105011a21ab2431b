"""middleware.http.oauth2clientcredentials with a token server: the app gets a token that its caller never sees."""
import base64
import json
import threading
import time
import urllib.parse

from harness import Case, Cut, Reply, reply_json, tag, wait_for

CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: pipelines}
spec:
  appHttpPipeline:
    handlers:
    - {name: token, type: middleware.http.oauth2clientcredentials}
"""


def component(url, **more):
    metadata = {"clientID": "me:1", "clientSecret": "s/e&c", "scopes": "read,write all", "tokenURL": url, "headerName": "Authorization", **more}
    return ("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: token}\nspec:\n  type: middleware.http.oauth2clientcredentials\n"
            "  version: v1\n  metadata:\n" + "".join("  - {name: %s, value: %s}\n" % (k, json.dumps(v)) for k, v in more_or(metadata)))


def more_or(metadata):
    return [(k, v) for k, v in metadata.items() if v is not None]


class TokenServer:
    def __init__(self, case):
        self.answer, self.count = None, 0
        self.app = case.app(self.serve)
        self.url = "http://127.0.0.1:%d/token" % self.app.port

    def serve(self, request):
        self.count += 1
        if self.answer:
            return self.answer(request)
        return reply_json({"access_token": "t%d" % self.count, "token_type": "bearer", "expires_in": 3600})

    def last(self):
        """(form, what Authorization holds or None)"""
        request = self.app.requests[-1]
        basic = request.header("authorization")
        return (dict(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)),
                base64.b64decode(basic.split(" ")[1]).decode() if basic else None)


class ClientCredentials(Case):
    def gate(self, server, **more):
        app = self.app()
        return self.sidecar("app", app, resources={"token.yaml": component(server.url, **more)}, config=CONFIG), app

    @tag("debug", "tsan")
    def test_one_fetch_for_all_and_only_the_app_sees_the_token(self):
        server = TokenServer(self)
        go = threading.Event()
        server.answer = lambda request: go.wait(30) and reply_json({"access_token": "tok", "token_type": "bearer", "expires_in": 3600})
        a, app = self.gate(server)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(a.invoke("app", "x", headers=[("Authorization", "mine")], timeout_s=60)))
                   for _ in range(20)]
        for thread in threads:
            thread.start()
        wait_for("the token to be asked for", lambda: server.count == 1)
        go.set()
        for thread in threads:
            thread.join()
        self.assertEqual([r.status for r in answers], [200] * 20)
        self.assertEqual([[v for n, v in r.headers if n.lower() == "authorization"] for r in app.requests], [["Bearer tok"]] * 20)
        self.assertFalse(any("tok" in str(r.headers) for r in answers))
        self.assertEqual(a.invoke("app", "x").status, 200)
        self.assertEqual(server.count, 1)
        form, basic = server.last()
        self.assertEqual(form, {"grant_type": "client_credentials", "scope": "read write all"})
        self.assertEqual(basic, "me%3A1:s%2Fe%26c")
        self.assertNotIn("s/e&c", a.log())
        self.assertRegex(a.metrics(), r'outrigger_oauth2_token_requests_total\{[^}]*result="ok"[^}]*\} 1')

    @tag("debug")
    def test_how_credentials_are_sent(self):
        in_body = {"grant_type": "client_credentials", "scope": "read write all", "client_id": "me:1", "client_secret": "s/e&c"}
        for style, count, body, header in (("1", 1, in_body, None), ("2", 1, None, "me%3A1:s%2Fe%26c"), ("0", 2, in_body, None)):
            server = TokenServer(self)
            if style == "0":  # knows them in the body only
                server.answer = lambda request: reply_json({"access_token": "t"}) if b"client_id" in request.body else Reply(401, b"{}")
            a, _ = self.gate(server, authStyle=style)
            self.assertEqual(a.invoke("app", "x").status, 200, style)
            form, basic = server.last()
            self.assertEqual((server.count, basic), (count, header), style)
            if body:
                self.assertEqual(form, body, style)
        server = TokenServer(self)
        a, app = self.gate(server, endpointParamsQuery="audience=https%3A%2F%2Fx&resource=a&resource=b", headerName="x-token", pathFilter="^/in/")
        self.assertEqual(a.invoke("app", "out/x").status, 200)
        self.assertEqual((server.count, app.requests[-1].header("x-token")), (0, None))
        self.assertEqual(a.invoke("app", "in/x").status, 200)
        self.assertEqual(app.requests[-1].header("x-token"), "Bearer t1")
        self.assertIn(b"&audience=https%3A%2F%2Fx&resource=a&resource=b", server.app.requests[-1].body)

    @tag("debug")
    def test_tokens_are_fetched_anew_when_they_expire(self):
        server = TokenServer(self)
        server.answer = lambda request: reply_json({"access_token": "t%d" % server.count, "token_type": "MAC", "expires_in": "2"})
        a, app = self.gate(server)
        self.assertEqual(a.invoke("app", "x").status, 200)
        self.assertEqual(app.requests[-1].header("authorization"), "MAC t1")
        wait_for("another token", lambda: a.invoke("app", "x").status == 200 and app.requests[-1].header("authorization") != "MAC t1", 30)
        server.answer = lambda request: Reply(200, b"access_token=form&expires_in=100", [("Content-Type", "application/x-www-form-urlencoded")])
        wait_for("a token by form", lambda: a.invoke("app", "x").status == 200 and app.requests[-1].header("authorization") == "Bearer form", 30)

    @tag("debug")
    def test_a_life_that_says_nothing_or_too_much_is_a_life(self):
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        for answer in (Reply(200, b"access_token=t&expires_in=0", form), Reply(200, b"access_token=t&expires_in=9000000", form),
                       reply_json({"access_token": "t", "expires_in": 0}), reply_json({"access_token": "t", "expires_in": 0.5}),
                       reply_json({"access_token": "t", "expires_in": 1e300})):
            server = TokenServer(self)
            server.answer = lambda request: answer  # noqa: B023: used up within the round
            a, app = self.gate(server)
            wait_for("a call with a token", lambda: a.invoke("app", "x").status == 200)
            self.assertEqual(app.requests[-1].header("authorization"), "Bearer t")

    @tag("debug")
    def test_without_a_token_the_app_is_not_called(self):
        def cut(request):
            raise Cut

        elsewhere = self.app()
        server = TokenServer(self)
        a, app = self.gate(server, authStyle="2")
        for answer, reason in ((lambda r: Reply(401, b"no"), "refused"), (lambda r: Reply(500), "refused"), (cut, "unreachable"),
                               (lambda r: Reply(200, b"<html>"), "malformed"), (lambda r: reply_json({"token_type": "bearer"}), "malformed"),
                               (lambda r: reply_json({"access_token": "a\r\nx: y"}), "malformed"), (lambda r: reply_json([]), "malformed"),
                               (lambda r: Reply(307, b"", [("Location", "http://127.0.0.1:%d/" % elsewhere.port)]), "refused"),
                               (lambda r: Reply(200, b" " * 2000000), "too_large")):
            server.answer = answer
            wait_for(reason, lambda: a.invoke("app", "x").body.decode() == "no token for this request can be had: " + reason, 30)
            got = a.invoke("app", "x")
            self.assertEqual(got.status, 502, reason)
        self.assertEqual((app.requests, elsewhere.requests), ([], []))  # and the secret was told to nobody else
        # one that is refused once is not asked by each request
        server.answer = lambda r: Reply(401, b"no")
        wait_for("the next try", lambda: "refused" in a.invoke("app", "x").body.decode(), 30)
        before, began = server.count, time.monotonic()
        for _ in range(50):
            a.invoke("app", "x")
        self.assertLessEqual(server.count - before, time.monotonic() - began + 2)
        server.answer = None
        wait_for("a token again", lambda: a.invoke("app", "x").status == 200, 30)

    @tag("debug")
    def test_a_server_that_hangs_and_a_caller_who_leaves(self):
        server = TokenServer(self)
        hold = threading.Event()
        server.answer = lambda request: hold.wait(60) and Reply(500)
        a, app = self.gate(server)
        with self.assertRaises(OSError):
            a.invoke("app", "x", timeout_s=1)
        got = a.invoke("app", "x", timeout_s=60)
        self.assertEqual((got.status, got.body), (502, b"no token for this request can be had: timeout"))
        hold.set()
        self.assertEqual(app.requests, [])
        server.answer = lambda request: hold.wait(60) and Reply(500)
        hold.clear()
        self.assertEqual(a.stop(), 0)
        hold.set()

    @tag("debug")
    def test_what_is_wrong_is_told_at_the_start(self):
        for more, said in (({"clientSecret": None}, "clientSecret"), ({"tokenURL": "nonsense"}, "tokenURL"), ({"headerName": "a b"}, "headerName"),
                           ({"authStyle": "3"}, "authStyle"), ({"pathFilter": "("}, "pathFilter"),
                           ({"endpointParamsQuery": "client_secret=x"}, "client_secret has a place of its own"),
                           ({"endpointParamsQuery": "a=%zz"}, "")):
            server = TokenServer(self)
            a = self.sidecar("a", resources={"token.yaml": component(server.url, **more)}, config=CONFIG, is_ready=False)
            if not said:
                a.wait_ready()
                continue
            self.assertEqual(a.wait_exit(), 1)
            a.may_end = True
            self.assertIn("component token", a.log())
            self.assertIn(said, a.log())
            self.assertNotIn("s/e&c", a.log())
