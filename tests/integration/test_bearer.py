"""middleware.http.bearer: tokens of an issuer whose keys are found by OIDC discovery, or by URL."""
import base64
import json
import subprocess
import threading
import time

from harness import Case, Reply, reply_json, tag, wait_for

CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: pipelines}
spec:
  httpPipeline:
    handlers:
    - {name: auth, type: middleware.http.bearer}
"""
COMPONENT = """apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: auth}
spec:
  type: middleware.http.bearer
  version: v1
  initTimeout: %s
  metadata:
  - {name: audience, value: me}
  - {name: issuer, value: "%s"}
"""


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Keys and tokens made by the openssl program."""

    def __init__(self, case):
        self.case, self.keys, self.reads, self.answer = case, {}, 0, None
        self.app = case.app(self.serve)
        self.url = "http://127.0.0.1:%d" % self.app.port

    def add(self, kid):
        path = self.case.path(kid + ".pem")
        subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True, capture_output=True)
        modulus = subprocess.run(["openssl", "rsa", "-in", path, "-noout", "-modulus"], check=True, capture_output=True,
                                 text=True).stdout.strip().partition("=")[2]
        self.keys[kid] = {"kty": "RSA", "kid": kid, "use": "sig", "n": url64(bytes.fromhex(modulus)), "e": "AQAB"}

    def serve(self, request):
        self.reads += 1
        if self.answer:
            return self.answer(request)
        if request.path == "/.well-known/openid-configuration":
            return reply_json({"issuer": self.url, "jwks_uri": self.url + "/keys"})
        return reply_json({"keys": list(self.keys.values())}) if request.path == "/keys" else Reply(404)

    def token(self, kid, head=None, **claims):
        whole = {"iss": self.url, "aud": "me", "exp": int(time.time()) + 300, **claims}
        text = ".".join(url64(json.dumps(part).encode()) for part in (head or {"alg": "RS256", "kid": kid}, whole))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.case.path(kid + ".pem")], check=True,
                                   input=text.encode(), capture_output=True).stdout
        return text + "." + url64(signature)


def bearer(token):
    return [("Authorization", "Bearer " + token)]


class Bearer(Case):
    def gate(self, issuer, more="", timeout="5s", **rest):
        return self.sidecar("gate", resources={"auth.yaml": COMPONENT % (timeout, issuer.url) + more}, config=CONFIG, **rest)

    @tag("debug", "tsan")
    def test_only_tokens_of_the_issuer_for_the_audience_pass(self):
        issuer = Issuer(self)
        issuer.add("one")
        a = self.gate(issuer, is_ready=False)  # its health checks need a token as well
        good = issuer.token("one")
        wait_for("the gate", lambda: a.call("GET", "/v1.0/healthz/outbound", bearer(good)).status == 204)
        for headers, reason in (
                ([], "Bearer"), ([("Authorization", "Basic eDp5")], "Bearer"), (bearer(good) + bearer(good), "Bearer"),
                (bearer(good[:-6] + "AAAAAA"), "signature"), (bearer("x"), "malformed"),
                (bearer(issuer.token("one", exp=int(time.time()) - 100)), "expired"),
                (bearer(issuer.token("one", nbf=int(time.time()) + 100)), "not_yet_valid"),
                (bearer(issuer.token("one", aud="you")), "audience"), (bearer(issuer.token("one", iss="x")), "issuer"),
                (bearer(issuer.token("one", {"alg": "none"})), "algorithm"),
                (bearer(issuer.token("one", {"alg": "HS256", "kid": "one"})), "algorithm")):
            answer = a.call("GET", "/v1.0/metadata", headers)
            self.assertEqual((answer.status, answer.body), (401, b"Unauthorized"), reason)
            self.assertIn(reason, answer.header("WWW-Authenticate"))
        for _ in range(3):
            self.assertEqual(a.call("GET", "/v1.0/metadata", bearer(good)).status, 200)
        self.assertRegex(a.metrics(), r'outrigger_jwt_refused_total\{[^}]*reason="expired"[^}]*\} 1')
        self.assertEqual(issuer.reads, 2)

    @tag("debug")
    def test_new_keys_are_found_and_the_last_ones_stay_while_the_issuer_is_away(self):
        issuer = Issuer(self)
        issuer.add("one")
        a = self.gate(issuer, is_ready=False)
        first = issuer.token("one")
        wait_for("the gate", lambda: a.call("GET", "/v1.0/metadata", bearer(first)).status == 200)
        issuer.add("two")
        second = issuer.token("two")
        self.assertIn("unknown_key", a.call("GET", "/v1.0/metadata", bearer(second)).header("WWW-Authenticate"))
        wait_for("the new key", lambda: a.call("GET", "/v1.0/metadata", bearer(second)).status == 200, 30)
        self.assertEqual(a.call("GET", "/v1.0/metadata", bearer(first)).status, 200)
        issuer.answer = lambda request: Reply(500)
        reads = issuer.reads
        third = bearer(issuer.token("two", {"alg": "RS256", "kid": "three"}))
        self.assertEqual(a.call("GET", "/v1.0/metadata", third).status, 401)
        wait_for("another look", lambda: issuer.reads > reads, 30)
        a.wait_log("keys of an issuer cannot be read")
        self.assertEqual(a.call("GET", "/v1.0/metadata", bearer(second)).status, 200)

    @tag("debug")
    def test_an_issuer_that_lies_or_hangs_ends_the_start(self):
        over = threading.Event()
        self.addCleanup(over.set)
        for answer, text in ((lambda r: reply_json({"issuer": "https://other", "jwks_uri": "http://127.0.0.1:1/"}), "another issuer"),
                             (lambda r: Reply(200, b"<html>"), "OIDC discovery"), (lambda r: Reply(404), "status 404"),
                             (lambda r: Reply(200, b" " * 1000000), "OIDC discovery"),
                             (lambda r: over.wait() and Reply(200), "init timeout")):
            issuer = Issuer(self)
            issuer.answer = answer
            a = self.gate(issuer, timeout="2s", is_ready=False)
            a.may_end = True
            self.assertNotEqual(a.wait_exit(), 0)
            self.assertIn("component auth", a.log())
            self.assertIn(text, a.log())
