"""AccessPolicy and Authentication between real sidecars under mutual TLS: who calls is what his certificate says."""
import json
import re
import ssl
import threading
import time

import h2raw
from grpc_client import Client, needs_grpc
from h2raw import message
from harness import Case, Reply, tag, wait_for
from pki import Authority, Pki
from test_bearer import Issuer, bearer
from test_proxy import GrpcApp, echo
from test_resiliency import POLICIES

POLICY = """apiVersion: outrigger.io/v1alpha1
kind: AccessPolicy
metadata: {name: %s}
spec:
  mode: %s
  defaultAction: %s
  rules:
%s
"""
FRIENDS = """  - name: friends
    action: ALLOW
    from: [{appId: friend, namespace: default, trustDomain: public}]
    paths: [/open/**, /test.v1.Echo/*]
"""
TOKENS = """apiVersion: outrigger.io/v1alpha1
kind: Authentication
metadata: {name: tokens}
spec:
  required: %s
  issuers:
  - {issuer: "%s", audiences: [me]%s}
  claimsToHeaders:
  - {claim: sub, header: X-User}
"""


def policy(rules, name="gate", mode="enforce", otherwise="deny"):
    return POLICY % (name, mode, otherwise, rules or "    []")


def total(sidecar, name, *parts):
    """The sum of a counter's series that have these labels."""
    lines = re.findall(r"^%s\{([^}]*)\} (\S+)$" % name, sidecar.metrics(), re.M)
    return sum(float(value) for labels, value in lines if all(part in labels for part in parts))


class Gate(Case):
    def secure(self, authority, app_id, app=None, **more):
        options = authority.flags_for()
        options["flags"] = options["flags"] + list(more.pop("flags", ()))
        return self.sidecar(app_id, app, **options, **more)

    def call_grpc(self, sidecar, method="Do", extra=()):
        """(grpc-status, messages) of a proxied call."""
        with h2raw.Peer(port=sidecar.grpc) as peer:
            peer.until_frame(h2raw.SETTINGS)
            stream = peer.begin(h2raw.call_headers("/test.v1.Echo/" + method, extra=[("dapr-app-id", "callee"), *extra]))
            peer.send_data(stream.id, message(b"hi"), True)
            peer.until_over(stream)
            return dict(stream.heads[-1])["grpc-status"], stream.messages

    def wait_status(self, sidecar, status, *args, **more):
        wait_for("the change", lambda: sidecar.invoke("callee", *args, **more).status == status)


class Callers(Gate):
    @tag("debug", "tsan")
    def test_one_caller_is_let_in_and_another_is_not(self):
        ca = Authority(self).start()
        app = self.app()
        friend, stranger = self.secure(ca, "friend"), self.secure(ca, "stranger")
        callee = self.secure(ca, "callee", app, resources={"gate.yaml": policy(FRIENDS)})
        self.assertEqual(friend.invoke("callee", "open/x?y=1").status, 200)
        for sidecar, path in ((stranger, "open/x"), (friend, "closed"), (friend, "open/../closed"), (friend, "open/..%252Fclosed")):
            answer = sidecar.invoke("callee", path)
            self.assertEqual((answer.status, answer.json["errorCode"]), (403, "ERR_DIRECT_INVOKE"), path)
            self.assertEqual(answer.header("Outrigger-Reason"), "access_policy")
        self.assertIn("access control policy has denied access to id: spiffe://public/ns/default/stranger operation: open/x "
                      "verb: GET", stranger.invoke("callee", "open/x").json["message"])
        self.assertEqual([request.target for request in app.requests], ["/open/x?y=1"])
        self.assertEqual(total(callee, "outrigger_policy_denied_total", 'policy="gate"', 'rule="default"'), 5 - 1)
        self.assertEqual(total(callee, "outrigger_policy_denied_total", 'rule="path"'), 1)
        self.assertRegex(callee.log(), r'access control refused a call.*reason=access_policy.*policy=gate.*rule=default')
        # whoever calls by itself, with a certificate but no sidecar, is judged like anybody
        self.assertEqual(callee.invoke("callee", "closed").status, 200)

    @tag("debug")
    def test_proxied_grpc_is_judged_by_caller_and_method(self):
        ca = Authority(self).start()
        app = GrpcApp(echo)
        self.addCleanup(app.server.close)
        friend, stranger = self.secure(ca, "friend"), self.secure(ca, "stranger")
        callee = self.secure(ca, "callee", app.port, flags=["--app-protocol", "grpc"], resources={"gate.yaml": policy(
            FRIENDS + "  - {name: never, action: deny, protocols: [grpc], paths: [/test.v1.Echo/Never]}\n")})
        self.assertEqual(self.call_grpc(friend), ("0", [b"hi"]))
        self.assertEqual(self.call_grpc(stranger), ("7", []))
        self.assertEqual(self.call_grpc(friend, "Never"), ("7", []))
        self.assertEqual(len(app.seen), 1)
        self.assertEqual(total(callee, "outrigger_policy_denied_total", 'rule="never"'), 1)

    @tag("debug")
    def test_policies_change_while_calls_go_on_and_shadow_only_counts(self):
        ca = Authority(self).start()
        app = self.app()
        stranger = self.secure(ca, "stranger")
        callee = self.secure(ca, "callee", app, resources={"gate.yaml": policy(FRIENDS, mode="shadow")})
        self.assertEqual(stranger.invoke("callee", "open/x").status, 200)
        self.assertEqual(total(callee, "outrigger_policy_shadow_denied_total", 'policy="gate"', 'rule="default"'), 1)
        callee.write("gate.yaml", policy(FRIENDS))
        self.wait_status(stranger, 403, "open/x")
        callee.write("gate.yaml", policy("  - {action: permit}\n"))  # means nothing: what was stays
        callee.wait_log("action: must be allow, deny or audit")
        self.assertEqual(stranger.invoke("callee", "open/x").status, 403)
        callee.write("gate.yaml", policy("  - {name: look, action: audit, methods: [GET]}\n", otherwise="allow"))
        self.wait_status(stranger, 200, "open/x")
        self.assertGreater(total(callee, "outrigger_policy_audited_total", 'rule="look"'), 0)
        callee.wait_log("a call is audited")
        callee.remove("gate.yaml")
        wait_for("no policy", lambda: callee.log().count("resources reloaded") == 3)
        self.assertEqual(stranger.invoke("callee", "closed").status, 200)

    @tag("debug")
    def test_a_policy_that_cannot_be_enforced_ends_the_start_with_its_place(self):
        callee = self.sidecar("callee", self.app(), is_ready=False, resources={
            "gate.yaml": policy("  - {action: allow, path: [/x]}\n  - {action: deny, from: [{}]}\n")})
        callee.may_end = True
        self.assertNotEqual(callee.wait_exit(), 0)
        self.assertRegex(callee.log(), r"gate\.yaml:8:\d+: spec\.rules\[0\]\.path: unknown field")
        self.assertRegex(callee.log(), r"gate\.yaml:9:\d+: from: names nobody")


    @tag("debug")
    def test_refusals_are_neither_repeated_nor_counted_against_who_is_called(self):
        app = self.app()
        callee = self.sidecar("callee", app, resources={"gate.yaml": policy("  - {action: allow, methods: [GET]}\n")})
        caller = self.sidecar("caller", resources={"r.yaml": POLICIES % "{apps: {callee: {retry: thrice, circuitBreaker: trip}}}"})
        for n in range(1, 6):
            self.assertEqual(caller.invoke("callee", "x", "POST", [], b"").status, 403)
            self.assertEqual(total(callee, "outrigger_policy_denied_total"), n)
        self.assertEqual(caller.invoke("callee", "x").status, 200)  # by the same breaker

    @tag("debug")
    def test_refusals_of_proxied_calls_are_not_either(self):
        app = GrpcApp(echo)
        self.addCleanup(app.server.close)
        callee = self.sidecar("callee", app.port, flags=["--app-protocol", "grpc"],
                              resources={"gate.yaml": policy("")})
        caller = self.sidecar("caller", resources={"r.yaml": POLICIES % "{apps: {callee: {retry: thrice, circuitBreaker: trip}}}"})
        for n in range(1, 6):
            self.assertEqual(self.call_grpc(caller), ("7", []))
            self.assertEqual(total(callee, "outrigger_policy_denied_total"), n)
        callee.remove("gate.yaml")
        callee.wait_log("resources reloaded")
        self.assertEqual(self.call_grpc(caller), ("0", [b"hi"]))


class Tokens(Gate):
    def issuer(self, kid="one"):
        issuer = Issuer(self)
        issuer.add(kid)
        return issuer

    def pair_with(self, issuer, required="true", keys="", more=None, **rest):
        app = self.app()
        callee = self.sidecar("callee", app, resources={"tokens.yaml": TOKENS % (required, issuer.url, keys), **(more or {})}, **rest)
        return self.sidecar("caller"), callee, app

    @tag("debug", "tsan")
    def test_calls_show_a_token_and_the_app_hears_who_it_is(self):
        issuer = self.issuer()
        caller, callee, app = self.pair_with(issuer, more={"gate.yaml": policy(
            "  - {action: allow, paths: [/menu]}\n"
            "  - {name: cooks, action: allow, paths: [/stove], claims: [{name: role, values: [cook]}]}\n")})
        forged = [("X-User", "root"), ("x_user", "root")]
        joe, cook = issuer.token("one", sub="joe"), issuer.token("one", sub="ann", role=["cook", "eater"])
        self.assertEqual(caller.invoke("callee", "menu", headers=bearer(joe) + forged).status, 200)
        self.assertEqual(caller.invoke("callee", "stove", headers=bearer(cook) + forged).status, 200)
        self.assertEqual(caller.invoke("callee", "stove", headers=bearer(joe)).status, 403)
        for request, user in zip(app.requests, ("joe", "ann")):
            said = {name.lower(): value for name, value in request.headers}
            self.assertEqual(said["x-user"], user)
            self.assertNotIn("x_user", said)
            self.assertNotIn("authorization", said)
        now = int(time.time())
        for token, reason in ((None, "missing"), ("x", "malformed"), (joe[:-6] + "AAAAAA", "signature"), ("a" * 17000, "too_large"),
                              (issuer.token("one", exp=now - 100), "expired"), (issuer.token("one", nbf=now + 100), "not_yet_valid"),
                              (issuer.token("one", aud="you"), "audience"), (issuer.token("one", iss="x"), "issuer"),
                              (issuer.token("one", {"alg": "none"}), "algorithm"),
                              (issuer.token("one", {"alg": "HS256", "kid": "one"}), "algorithm"),
                              (issuer.token("one", {"alg": "RS256", "kid": "two"}), "unknown_key")):
            answer = caller.invoke("callee", "menu", headers=bearer(token) if token else [])
            if reason == "too_large" and answer.status == 431:  # the caller's own limit is lower
                continue
            self.assertEqual((answer.status, answer.json["errorCode"]), (401, "ERR_DIRECT_INVOKE"), reason)
            self.assertIn("the token was refused: " + reason, answer.json["message"])
            self.assertEqual(answer.header("Outrigger-Reason"), reason)
            self.assertRegex(answer.header("WWW-Authenticate"), "^Bearer$" if reason == "missing" else 'error_description="%s"' % reason)
            self.assertGreater(total(callee, "outrigger_jwt_refused_total", 'reason="%s"' % reason), 0)
        self.assertIn("reason=missing", callee.log())
        self.assertEqual(len(app.requests), 2)
        self.assertEqual(caller.invoke("callee", "menu", headers=bearer(joe)).status, 200)  # nobody else is affected

    @tag("debug")
    def test_optional_tokens_are_looked_at_when_they_are_there(self):
        issuer = self.issuer()
        caller, _, app = self.pair_with(issuer, required="false")
        self.assertEqual(caller.invoke("callee", "x", headers=[("X-User", "root")]).status, 200)
        self.assertEqual(caller.invoke("callee", "x", headers=[("Authorization", "Basic eDp5")]).status, 200)
        self.assertEqual(caller.invoke("callee", "x", headers=bearer("x")).status, 401)
        self.assertEqual(caller.invoke("callee", "x", headers=bearer(issuer.token("one", sub="joe"))).status, 200)
        users = [dict((n.lower(), v) for n, v in request.headers).get("x-user") for request in app.requests]
        self.assertEqual(users, [None, None, "joe"])

    @tag("debug")
    def test_grpc_calls_show_tokens_in_their_metadata(self):
        issuer = self.issuer()
        app = GrpcApp(echo)
        self.addCleanup(app.server.close)
        self.sidecar("callee", app.port, flags=["--app-protocol", "grpc"],
                     resources={"tokens.yaml": TOKENS % ("true", issuer.url, "")})
        caller = self.sidecar("caller")
        good = [("authorization", "Bearer " + issuer.token("one", sub="joe"))]
        self.assertEqual(self.call_grpc(caller, extra=good), ("0", [b"hi"]))
        self.assertEqual(dict(app.one()[1].heads[0])["x-user"], "joe")
        self.assertEqual(self.call_grpc(caller), ("16", []))
        self.assertEqual(self.call_grpc(caller, extra=[("authorization", "Bearer x")]), ("16", []))
        self.assertEqual(len(app.seen), 1)

    @tag("debug")
    @needs_grpc
    def test_invoke_service_hears_of_tokens_too(self):
        issuer = self.issuer()
        caller, _, app = self.pair_with(issuer)
        client = Client(caller.grpc)
        asked = {"id": "callee", "message": {"method": "x", "http_extension": {"verb": 1}, "data": {"value": b""}}}
        answer = client.call("Dapr/InvokeService", asked)
        self.assertEqual((answer.code, len(app.requests)), ("UNAUTHENTICATED", 0))
        self.assertIn("the token was refused: missing", answer.message)
        good = client.call("Dapr/InvokeService", asked, metadata=[("authorization", "Bearer " + issuer.token("one", sub="joe"))])
        self.assertEqual((good.code, len(app.requests)), ("OK", 1))

    @tag("debug")
    def test_keys_over_tls_are_taken_from_who_can_prove_his_name(self):
        for trusted in (True, False):
            pki, issuer = Pki(self.path("pki%d" % trusted)), self.issuer("key%d" % trusted)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pki.leaf("IP:127.0.0.1" if trusted else "IP:127.0.0.9"))
            issuer.app.tls = context
            issuer.url = issuer.url.replace("http:", "https:")
            caller, callee, app = self.pair_with(issuer, env={"SSL_CERT_FILE": pki.path("ca.crt")})
            answer = caller.invoke("callee", "x", headers=bearer(issuer.token("key%d" % trusted)))
            self.assertEqual((answer.status, answer.header("Outrigger-Reason")), (200, None) if trusted else (401, "keys_unavailable"))
            caller.stop()
            callee.stop()

    @tag("debug")
    def test_an_issuer_that_is_away_at_the_start_is_waited_for_by_nobody(self):
        issuer = self.issuer()
        issuer.app.down()
        caller, callee, app = self.pair_with(issuer)
        good = bearer(issuer.token("one", sub="joe"))
        answer = caller.invoke("callee", "x", headers=good)
        self.assertEqual((answer.status, answer.header("Outrigger-Reason")), (401, "keys_unavailable"))
        issuer.app.up()
        self.wait_status(caller, 200, "x", headers=good)

    @tag("debug")
    def test_keys_that_hang_lie_or_grow_change_nothing(self):
        issuer = self.issuer()
        caller, callee, app = self.pair_with(issuer)
        good = bearer(issuer.token("one", sub="joe"))
        self.assertEqual(caller.invoke("callee", "x", headers=good).status, 200)
        other = bearer(issuer.token("one", {"alg": "RS256", "kid": "two"}))
        over = threading.Event()  # of a read that hangs
        self.addCleanup(over.set)
        for answer in (lambda r: over.wait() and None, lambda r: Reply(200, b"{}"), lambda r: Reply(200, b" " * 1000000)):
            issuer.answer, reads = answer, issuer.reads
            self.assertEqual(caller.invoke("callee", "x", headers=other).status, 401)
            wait_for("another look", lambda: issuer.reads > reads)
            self.assertEqual(caller.invoke("callee", "x", headers=good).status, 200)
            over.set()
        wait_for("the failures to be counted",
                 lambda: total(callee, "outrigger_jwks_reads_total", 'result="failed"') >= 1)
        issuer.answer = None
        issuer.add("two")
        second = bearer(issuer.token("two"))
        self.wait_status(caller, 200, "x", headers=second)

    @tag("debug", "tsan")
    def test_no_call_fails_while_keys_issuers_and_rules_change_under_it(self):
        issuer = self.issuer()
        caller, callee, app = self.pair_with(issuer, env={"OUTRIGGER_LOOPS": "4"},
                                             more={"gate.yaml": policy("  - {action: allow, paths: [/x], claims: [{name: sub}]}\n")})
        good = [bearer(issuer.token("one", sub="user%d" % n)) for n in range(4)]
        unknown = bearer(issuer.token("one", {"alg": "RS256", "kid": "nobody"}))
        statuses, is_over = [], threading.Event()

        def call_on(n):
            while not is_over.is_set():
                statuses.append(caller.invoke("callee", "x", headers=good[n]).status)
                caller.invoke("callee", "x", headers=unknown)
        threads = [threading.Thread(target=call_on, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(6):
                issuer.keys["more"] = dict(issuer.keys["one"], kid="more%d" % n)
                callee.write("tokens.yaml", (TOKENS % ("true", issuer.url, "")) + "  clockSkew: %ds\n" % (50 + n))
                callee.write("gate.yaml", policy("  - {action: allow, paths: [/x, /y%d], claims: [{name: sub}]}\n" % n))
                wait_for("the change", lambda: callee.log().count("resources reloaded") > n)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        self.assertGreater(len(statuses), 20)
        self.assertEqual(set(statuses), {200})

    @tag("debug")
    def test_authentication_changes_while_calls_go_on(self):
        issuer, other = self.issuer(), self.issuer("two")
        keys = self.path("keys.json")
        with open(keys, "w") as file:
            json.dump({"keys": list(other.keys.values())}, file)
        caller, callee, app = self.pair_with(issuer)
        first, second = bearer(issuer.token("one")), bearer(other.token("two"))
        self.assertEqual(caller.invoke("callee", "x", headers=first).status, 200)
        self.assertEqual(caller.invoke("callee", "x", headers=second).header("Outrigger-Reason"), "issuer")
        callee.write("tokens.yaml", TOKENS % ("true", other.url, ', jwksFile: "%s"' % keys))
        self.wait_status(caller, 200, "x", headers=second)
        self.assertEqual(caller.invoke("callee", "x", headers=first).header("Outrigger-Reason"), "issuer")
        self.assertEqual(other.reads, 0)
        callee.write("tokens.yaml", TOKENS % ("true", issuer.url, ', jwks: %s' % json.dumps({"keys": list(issuer.keys.values())})))
        self.wait_status(caller, 200, "x", headers=first)
        callee.remove("tokens.yaml")
        self.wait_status(caller, 200, "x")
