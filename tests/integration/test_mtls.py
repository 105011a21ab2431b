"""Mutual TLS between real sidecars, with identities of a real authority; peers that are not what they should be."""
import os
import re
import signal
import socket
import ssl
import stat
import threading
import time

from h2raw import Peer, call_headers
from harness import SLOW, WAIT_S, Client, Port, call, tag, wait_for
from pki import Authority, Mtls, Pki, client_context, openssl, read, server_context, total


class Pair(Mtls):
    @tag("debug", "tsan")
    def test_two_sidecars_call_each_other_under_mutual_tls(self):
        ca = self.authority()
        app = self.app()
        a, b = self.secure(ca, "caller"), self.secure(ca, "callee", app)
        for i in range(5):
            self.assertEqual(a.invoke("callee", "x%d" % i).status, 200)
        self.assertEqual(len(app.requests), 5)
        for sidecar in (a, b):
            self.assertIn("dapr_runtime_mtls_init_total", sidecar.metrics())
        # nobody reads the identity but the processes themselves
        with self.assertRaises((OSError, EOFError, AssertionError)):
            with Peer(b.internal, timeout_s=2) as peer:
                peer.until_over(peer.begin([(":method", "GET"), (":path", "/x"), (":scheme", "http"), (":authority", "callee"),
                                            ("dapr-callee-app-id", "callee")], ends=True))
        wait_for("the refusal to be counted",
                 lambda: total(b.metrics(), "outrigger_mtls_refused_total", 'reason="plain_text"') == 1)

    def test_a_sidecar_in_clear_text_gets_nowhere(self):
        ca = self.authority()
        app = self.app()
        self.secure(ca, "callee", app)
        plain = self.sidecar("plain")
        answer = plain.invoke("callee", "x")
        self.assertEqual(answer.status, 500)
        self.assertEqual(app.requests, [])

    def test_a_secured_sidecar_calls_nobody_in_clear_text(self):
        ca = self.authority()
        app = self.app()
        a = self.secure(ca, "caller")
        self.sidecar("callee", app)
        answer = a.invoke("callee", "x")
        self.assertEqual(answer.status, 500)
        self.assertIn("authentication handshake failed", answer.json["message"])
        self.assertEqual(app.requests, [])

    def test_namespaces_are_part_of_the_identity(self):
        ca = self.authority()
        app = self.app()
        a = self.secure(ca, "caller")
        self.secure(ca, "callee", app, env={"NAMESPACE": "prod"})
        self.assertEqual(a.invoke("callee.prod", "x").status, 200)


    @tag("debug")
    def test_the_authority_is_found_by_name(self):
        ca = self.authority()
        options = ca.flags_for()
        options["flags"][-1] = "localhost:%d" % ca.port
        a = self.sidecar("caller", **options)
        self.secure(ca, "callee", self.app())
        self.assertEqual(a.invoke("callee", "x").status, 200)


class Start(Mtls):
    def refused(self, text, **options):
        sidecar = self.sidecar("a", is_ready=False, **options)
        self.assertEqual(sidecar.wait_exit(), 1)
        self.assertIn(text, sidecar.log())
        sidecar.may_end = True

    @tag("debug")
    def test_what_is_missing_is_told_at_the_start(self):
        pki = Pki(self.path("pki"))
        self.refused("needs --sentry-address", flags=["--enable-mtls"])
        self.refused("needs trust anchors", flags=["--enable-mtls", "--sentry-address", "127.0.0.1:1"])
        self.refused("trust anchors", flags=["--enable-mtls", "--sentry-address", "127.0.0.1:1"],
                     env={"DAPR_TRUST_ANCHORS": "nonsense"})
        self.refused("not host:port", flags=["--enable-mtls", "--sentry-address", "localhost"],
                     env={"DAPR_TRUST_ANCHORS": pki.anchors})
        self.refused("control plane", flags=["--enable-mtls", "--sentry-address", "127.0.0.1:1",
                                             "--control-plane-trust-domain", "Bad Domain"],
                     env={"DAPR_TRUST_ANCHORS": pki.anchors})

    @tag("debug")
    def test_a_refusal_by_status_ends_the_process(self):
        ca = self.authority()
        options = ca.flags_for()
        options["env"]["NAMESPACE"] = ""
        self.refused("failed to retrieve the initial identity: error from sentry SignCertificate: rpc error: "
                     "code = PermissionDenied desc = invalid request: namespace is required", **options)

    @tag("debug")
    def test_an_authority_that_comes_later_is_waited_for(self):
        ca = Authority(self)
        Authority(self, folder=ca.dir).start().stop()  # makes the files
        app = self.app()
        sidecar = self.sidecar("late", app, is_ready=False, **ca.flags_for())
        sidecar.wait_log("cannot be reached yet")
        self.assertIsNone(sidecar.process.poll())
        with self.assertRaises(OSError):  # nothing is served without an identity
            self.assertNotEqual(call(sidecar.http, "GET", "/v1.0/healthz", timeout_s=0.5).status, 204)
        ca.start()
        sidecar.wait_ready()

    @tag("debug")
    def test_a_stop_while_it_waits_is_a_clean_one(self):
        pki = Pki(self.path("pki"))
        hold = Port()
        sidecar = self.sidecar("early", is_ready=False, flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % hold.number],
                               env={"DAPR_TRUST_ANCHORS": pki.anchors})
        sidecar.wait_log("cannot be reached yet")
        self.assertEqual(sidecar.stop(), 0)
        hold.release()

    @tag("debug")
    def test_somebody_else_in_sentrys_place_is_not_asked(self):
        pki, other = Pki(self.path("pki")), Pki(self.path("other"))
        good = "URI:spiffe://localhost/ns/default/dapr-sentry"
        rows = [  # sentry.jsonl server.*
            ("wrong-id", pki, "URI:spiffe://localhost/ns/default/dapr-placement", "unexpected SPIFFE ID"),
            ("wrong-trust-domain", pki, "URI:spiffe://public/ns/default/dapr-sentry", "unexpected SPIFFE ID"),
            ("wrong-namespace", pki, "URI:spiffe://localhost/ns/other/dapr-sentry", "unexpected SPIFFE ID"),
            ("dns-only", pki, "DNS:dapr-sentry.default.svc,DNS:localhost", "no URI SAN"),
            ("two-uris", pki, good + ",URI:spiffe://localhost/ns/default/x", "more than one URI SAN"),
            ("foreign-ca", other, good, "could not verify leaf certificate"),
        ]
        for name, signer, san, said in rows:
            listener = socket.create_server(("127.0.0.1", 0))
            context = server_context(signer.leaf(san))
            asked = []

            def serve():
                while True:
                    try:
                        sock, _ = listener.accept()
                    except OSError:
                        return
                    try:
                        tls = context.wrap_socket(sock, server_side=True)
                        asked.append(tls.recv(1000))
                    except (OSError, EOFError):
                        sock.close()
            threading.Thread(target=serve, daemon=True).start()
            sidecar = self.sidecar("a", is_ready=False, env={"DAPR_TRUST_ANCHORS": pki.anchors},
                                   flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % listener.getsockname()[1]])
            sidecar.wait_log(said)
            self.assertEqual([a for a in asked if a], [], name)
            self.assertEqual(sidecar.stop(), 0)
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


    @tag("debug")
    def test_an_answer_that_lies_is_not_used(self):
        pki, other = Pki(self.path("pki")), Pki(self.path("other"))
        context = server_context(pki.leaf("URI:spiffe://localhost/ns/default/dapr-sentry"))

        def sign(signer, body, days):
            """For the key that is asked for, by somebody."""
            request = re.search(rb"-----BEGIN CERTIFICATE REQUEST-----.*?-----END CERTIFICATE REQUEST-----\n", body, re.S)[0]
            with open(signer.path("asked.csr"), "wb") as file:
                file.write(request)
            with open(signer.path("asked.ext"), "w") as file:
                file.write("subjectAltName=critical,URI:spiffe://public/ns/default/a\n")
            openssl("x509", "-req", "-in", signer.path("asked.csr"), "-CA", signer.path("issuer.crt"), "-CAkey",
                    signer.path("issuer.key"), "-CAcreateserial", "-days", days, "-extfile", signer.path("asked.ext"),
                    "-out", signer.path("asked.crt"))
            return (read(signer.path("asked.crt")) + read(signer.path("issuer.crt"))).encode()
        rows = [("nothing", lambda body: b"", "no certificate in PEM form"),
                ("nonsense", lambda body: b"nonsense", "no certificate in PEM form"),
                ("somebody else's", lambda body: read(pki.leaf("URI:spiffe://public/ns/default/a")[0]).encode(), "for another key"),
                ("of another root", lambda body: sign(other, body, "2"), "cannot be used"),
                ("over", lambda body: sign(pki, body, "-1"), "over already")]
        for name, chain_for, said in rows:
            listener = socket.create_server(("127.0.0.1", 0))

            def serve():
                try:
                    sock, _ = listener.accept()
                    with Peer(sock=context.wrap_socket(sock, server_side=True)) as peer:
                        stream = peer.until_request()
                        chain = chain_for(stream.body)
                        length = bytes([len(chain) & 0x7f | 0x80, len(chain) >> 7 & 0x7f | 0x80, len(chain) >> 14])
                        peer.respond(stream.id, [b"\x0a" + length + chain])
                        peer.until_closed()
                except (OSError, EOFError, AssertionError):
                    pass
            threading.Thread(target=serve, daemon=True).start()
            sidecar = self.sidecar("a", is_ready=False, env={"DAPR_TRUST_ANCHORS": pki.anchors},
                                   flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % listener.getsockname()[1]])
            self.assertEqual(sidecar.wait_exit(), 1, name)
            sidecar.may_end = True
            self.assertIn(said, sidecar.log(), name)
            listener.close()

    @tag("debug")
    def test_how_the_first_request_fails(self):
        """sentry.jsonl first.*: a status that passes gets five tries of three seconds, any other none."""
        pki = Pki(self.path("pki"))
        context = server_context(pki.leaf("URI:spiffe://localhost/ns/default/dapr-sentry"))
        rows = [("internal", 13, "no", 1, "code = Internal desc = no"), ("unavailable", 14, "down", 5, "code = Unavailable desc = down"),
                ("exhausted", 8, "busy", 5, "code = ResourceExhausted desc = busy"),
                ("silent", None, "", 5, "code = DeadlineExceeded desc = context deadline exceeded")]

        def serve(listener, status, text, asked):
            while True:
                try:
                    sock, _ = listener.accept()
                    with Peer(sock=context.wrap_socket(sock, server_side=True), timeout_s=60) as peer:
                        while True:
                            stream = peer.until_request()
                            asked.append(dict(stream.heads[0]))
                            if status is not None:
                                peer.respond(stream.id, None, status, text)
                except (OSError, EOFError, AssertionError):
                    if listener.fileno() < 0:
                        return
        running = []
        for name, status, text, count, said in rows:
            listener, asked = socket.create_server(("127.0.0.1", 0)), []
            threading.Thread(target=serve, args=(listener, status, text, asked), daemon=True).start()
            sidecar = self.sidecar("a", is_ready=False, env={"DAPR_TRUST_ANCHORS": pki.anchors},
                                   flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % listener.getsockname()[1]])
            running.append((name, listener, asked, sidecar, count, said))
        for name, listener, asked, sidecar, count, said in running:
            self.assertEqual(sidecar.wait_exit(30 * SLOW), 1, name)
            sidecar.may_end = True
            self.assertEqual(len(asked), count, name)
            self.assertIn("failed to retrieve the initial identity: error from sentry SignCertificate: rpc error: " + said,
                          sidecar.log())
            self.assertEqual((asked[0][":path"], asked[0][":scheme"]), ("/dapr.proto.sentry.v1.CA/SignCertificate", "https"))
            self.assertIn("grpc-timeout", asked[0])
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class Callee(Mtls):
    """tls.jsonl callee.*: who is let in on the internal port."""

    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.echo = self.app()
        self.callee = self.secure(self.ca, "callee", self.echo)

    def ask(self, context, grpc=False):
        """Status of a call with this client: (HTTP status, gRPC status), or None when it got no answer."""
        sock = socket.create_connection(("127.0.0.1", self.callee.internal), timeout=WAIT_S)
        try:
            tls = context.wrap_socket(sock)
            if grpc:
                head = call_headers("/some.Service/Method", extra=[("dapr-callee-app-id", "callee")])
            else:
                head = [(":method", "GET"), (":path", "/x"), (":scheme", "https"), (":authority", "callee"),
                        ("dapr-callee-app-id", "callee")]
            with Peer(sock=tls, is_client=True) as peer:
                stream = peer.begin(head, ends=True)
                peer.until("an answer or the end", lambda: stream.is_over or peer.is_closed)
                return dict(stream.heads[-1]) if stream.heads else None
        except (ssl.SSLError, OSError, EOFError):
            return None
        finally:
            sock.close()

    @tag("debug", "tsan")
    def test_who_is_let_in_by_certificate(self):
        pki, other = self.ca.pki, Pki(self.path("other"))
        rows = [
            ("ok", pki.leaf("URI:spiffe://public/ns/default/caller"), 200),
            ("other-trust-domain", pki.leaf("URI:spiffe://example.org/ns/x/y"), 200),
            ("control-plane-id", pki.leaf("URI:spiffe://localhost/ns/default/dapr-placement"), 200),
            ("extra-segment", pki.leaf("URI:spiffe://public/ns/default/caller/x"), 200),
            ("uri-and-dns", pki.leaf("URI:spiffe://public/ns/default/caller,DNS:x"), 200),
            ("server-eku-only", pki.leaf("URI:spiffe://public/ns/default/caller", usage="serverAuth"), 200),
            ("path-free", pki.leaf("URI:spiffe://public/whatever"), 7),
            ("no-path", pki.leaf("URI:spiffe://public"), 7),
            ("dns-only", pki.leaf("DNS:caller"), "identity"),
            ("two-uris", pki.leaf("URI:spiffe://public/ns/default/a,URI:spiffe://public/ns/default/b"), "identity"),
            ("not-spiffe", pki.leaf("URI:https://public/ns/default/a"), "identity"),
            ("no-san", pki.leaf(None), "identity"),
            ("foreign-ca", other.leaf("URI:spiffe://public/ns/default/caller"), "untrusted"),
            ("leaf-without-issuer", pki.leaf("URI:spiffe://public/ns/default/caller", with_issuer=False), "untrusted"),
            ("expired", pki.leaf("URI:spiffe://public/ns/default/caller", days="-1"), "expired"),
            ("no-certificate", None, "no_certificate"),
        ]
        for name, identity, expected in rows:
            before = total(self.callee.metrics(), "outrigger_mtls_refused_total")
            head = self.ask(client_context(identity))
            if expected == 200:
                self.assertTrue(head and head[":status"] == "200", (name, head))
                continue
            if expected == 7:
                self.assertEqual((head[":status"], head["outrigger-error"]), ("500", "7"), name)
                head = self.ask(client_context(identity), grpc=True)
                self.assertEqual((head["grpc-status"], head["grpc-message"].split(":")[0]), ("7", "malformed SPIFFE ID"), name)
                continue
            self.assertIsNone(head, name)
            reason = 'reason="%s"' % expected
            wait_for("%s to be counted" % name, lambda: total(self.callee.metrics(), "outrigger_mtls_refused_total") > before)
            self.assertGreater(total(self.callee.metrics(), "outrigger_mtls_refused_total", reason), 0, name)
        # and nobody else was affected
        self.assertEqual(self.ask(client_context(rows[0][1]))[":status"], "200")
        self.callee.wait_log("a peer was refused on the internal port")

    @tag("debug")
    def test_protocols_and_versions(self):
        identity = self.ca.pki.leaf("URI:spiffe://public/ns/default/caller")
        self.assertEqual(self.ask(client_context(identity, alpn=("h2", "http/1.1")))[":status"], "200")
        self.assertIsNone(self.ask(client_context(identity, alpn=())))
        self.assertIsNone(self.ask(client_context(identity, alpn=("http/1.1",))))
        old = client_context(identity)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual(self.ask(old)[":status"], "200")
        for cipher, is_good in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
                                ("ECDHE-ECDSA-CHACHA20-POLY1305", True), ("ECDHE-ECDSA-AES128-SHA", False),
                                ("ECDHE-ECDSA-AES256-SHA", False), ("ECDHE-ECDSA-AES128-SHA256", False)):
            context = client_context(identity)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(cipher)
            self.assertEqual(self.ask(context) is not None, is_good, cipher)
        older = client_context(identity)
        older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
        older.set_ciphers("ALL:@SECLEVEL=0")
        self.assertIsNone(self.ask(older))

    @tag("debug")
    def test_plain_bytes_and_half_handshakes_hurt_nobody(self):
        identity = self.ca.pki.leaf("URI:spiffe://public/ns/default/caller")
        for bytes_ in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 100, b""):
            sock = socket.create_connection(("127.0.0.1", self.callee.internal), timeout=WAIT_S)
            sock.sendall(bytes_)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
            sock.close()
        self.assertEqual(self.ask(client_context(identity))[":status"], "200")
        metrics = self.callee.metrics()
        self.assertGreaterEqual(total(metrics, "outrigger_mtls_refused_total", 'reason="plain_text"'), 2)
        self.assertGreaterEqual(total(metrics, "outrigger_mtls_refused_total", 'reason="closed"'), 2)

    def test_certificate_shown_is_what_sentry_would_give(self):
        context = client_context(self.ca.pki.leaf("URI:spiffe://public/ns/default/caller"))
        with socket.create_connection(("127.0.0.1", self.callee.internal), timeout=WAIT_S) as sock:
            with context.wrap_socket(sock) as tls:
                der = tls.getpeercert(True)
        path = self.path("shown.pem")
        with open(path, "w") as file:
            file.write(ssl.DER_cert_to_PEM_cert(der))
        text = openssl("x509", "-in", path, "-noout", "-text")
        self.assertIn("X509v3 Subject Alternative Name: critical\n                URI:spiffe://public/ns/default/callee\n", text)
        self.assertIn("X509v3 Key Usage: critical\n                Digital Signature\n", text)
        self.assertIn("TLS Web Server Authentication, TLS Web Client Authentication", text)
        self.assertIn("X509v3 Authority Key Identifier", text)
        self.assertNotIn("Basic Constraints", text)
        self.assertIn("Subject: \n", text)
        self.assertIn("ED25519", text)


class Caller(Mtls):
    """tls.jsonl caller.*: whom a sidecar calls. The callee is this test."""

    def serve(self, context):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.connections, self.subjects = 0, []

        def one(sock):
            try:
                tls = context.wrap_socket(sock, server_side=True) if context else sock
                with Peer(sock=tls, with_settings={0xF0D1: 1}) as peer:
                    stream = peer.until_request()
                    peer.send_headers(stream.id, [(":status", "200"), ("content-length", "2")])
                    peer.send_data(stream.id, b"hi", True)
                    peer.until_closed()
            except (OSError, EOFError, AssertionError):
                sock.close()

        def accept():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                self.connections += 1
                threading.Thread(target=one, args=(sock,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def call_it(self, caller_options, context, name):
        port = self.serve(context)
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n"
                  "    component: static\n    version: v1\n    configuration: {callee: '127.0.0.1:%d'}\n" % port)
        caller = self.sidecar(name, config=config, **caller_options)
        return caller.invoke("callee", "x")

    @tag("debug")
    def test_whom_it_calls_by_certificate(self):
        ca = self.authority()
        pki, other, options = ca.pki, Pki(self.path("other")), ca.flags_for()
        good = "URI:spiffe://public/ns/default/callee"
        older = server_context(pki.leaf(good), pki.anchors)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        rows = [
            ("ok", server_context(pki.leaf(good), pki.anchors), None),
            ("other-trust-domain", server_context(pki.leaf("URI:spiffe://example.org/ns/default/callee"), pki.anchors), None),
            ("uri-and-dns", server_context(pki.leaf(good + ",DNS:x.example"), pki.anchors), None),
            ("client-eku-only", server_context(pki.leaf(good, usage="clientAuth"), pki.anchors), None),
            ("tls12", older, None),
            ("no-client-certificate-asked", server_context(pki.leaf(good)), None),
            ("other-app", server_context(pki.leaf("URI:spiffe://public/ns/default/someone")),
             'unexpected SPIFFE ID: "spiffe://public/ns/default/someone"'),
            ("other-namespace", server_context(pki.leaf("URI:spiffe://public/ns/prod/callee")), "unexpected SPIFFE ID"),
            ("extra-segment", server_context(pki.leaf(good + "/x")), "unexpected SPIFFE ID"),
            ("no-ns-segment", server_context(pki.leaf("URI:spiffe://public/callee")), "unexpected SPIFFE ID"),
            ("uppercase", server_context(pki.leaf("URI:spiffe://public/ns/Default/callee")), "unexpected SPIFFE ID"),
            ("two-uris", server_context(pki.leaf(good + ",URI:spiffe://public/ns/default/x")), "more than one URI SAN"),
            ("dns-only", server_context(pki.leaf("DNS:callee,DNS:localhost")), "no URI SAN"),
            ("expired", server_context(pki.leaf(good, days="-1")), "expired"),
            ("foreign-ca", server_context(other.leaf(good)), "could not verify leaf certificate"),
            ("no-alpn", server_context(pki.leaf(good), alpn=()), "missing selected ALPN property"),
        ]
        for name, context, said in rows:
            answer = self.call_it(options, context, "caller-" + name)
            if said is None:
                self.assertEqual((answer.status, answer.body), (200, b"hi"), (name, answer))
                continue
            self.assertEqual(answer.status, 500, name)
            self.assertIn("failed to invoke target callee after 3 retries", answer.json["message"], name)
            self.assertIn(said, answer.json["message"], name)
            self.assertGreaterEqual(self.connections, 4, name)
            self.assertGreater(total(self.started[-1].metrics(), "outrigger_mtls_refused_total", 'side="client"'), 0, name)


class Access(Mtls):
    """tls.jsonl callee.acl.*: access control by what the certificate says."""

    RULES = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
    - {appId: caller, defaultAction: deny, trustDomain: public, namespace: default,
       operations: [{name: "/ok/*", httpVerb: [GET], action: allow}]}
"""

    @tag("debug")
    def test_callers_are_known_by_their_certificate(self):
        ca = self.authority()
        app = self.app()
        self.secure(ca, "callee", app, config=self.RULES)
        caller, other = self.secure(ca, "caller"), self.secure(ca, "other")
        elsewhere = self.secure(ca, "caller", env={"NAMESPACE": "prod"})
        for sidecar, verb, method, status in ((caller, "GET", "ok/a", 200), (caller, "POST", "ok/a", 403), (caller, "GET", "no/a", 403),
                                              (caller, "GET", "OK/a", 200), (other, "GET", "ok/a", 403)):
            answer = sidecar.invoke("callee", method, verb)
            self.assertEqual(answer.status, status, (sidecar.app_id, verb, method, answer))
        self.assertIn("id: spiffe://public/ns/default/other operation: ok/a verb: GET", other.invoke("callee", "ok/a").json["message"])
        answer = elsewhere.invoke("callee.default", "ok/a")
        self.assertEqual(answer.status, 403, answer)
        self.assertIn("spiffe://public/ns/prod/caller", answer.json["message"])
        self.assertEqual(len(app.requests), 2)


class Rotation(Mtls):
    def load(self, caller, seconds, rate=100, is_over=None):
        """Calls at a rate for so long; the answers that were not 200."""
        bad, count, end = [], 0, time.monotonic() + seconds
        with Client(caller.http) as client:
            while time.monotonic() < end and not (is_over and is_over.is_set()):
                due = time.monotonic() + 1 / rate
                answer = client.call("GET", "/v1.0/invoke/callee/method/x")
                count += 1
                if answer.status != 200:
                    bad.append(answer)
                time.sleep(max(0, due - time.monotonic()))  # a rate, not a wait
        return count, bad

    def rotations(self, sidecar):
        return total(sidecar.metrics(), "dapr_runtime_mtls_workload_cert_rotated_total")

    @tag("debug")
    def test_certificates_of_six_seconds_under_load(self):
        ca = self.authority(ttl="6s", skew="15m")  # a life much shorter than the skew: pitfall 42
        app = self.app()
        a, b = self.secure(ca, "caller"), self.secure(ca, "callee", app)
        began = time.monotonic()
        count, bad = self.load(a, 20)
        self.assertEqual(bad, [])
        self.assertGreater(count, 0)
        for sidecar in (a, b):
            self.assertGreaterEqual(self.rotations(sidecar), 3)
        asked = total(ca.metrics(), "dapr_sentry_cert_sign_request_received_total")
        # No storm: each asks at 70 % of 6 s, however long all of this took; twice that is room for repetitions.
        self.assertLess(asked, 2 * 2 * ((time.monotonic() - began) / 4.2 + 2))

    @tag("debug")
    def test_an_authority_that_is_away_hurts_nobody_before_the_end(self):
        ca = self.authority(ttl="8s", skew="1s")
        app = self.app()
        a, b = self.secure(ca, "caller"), self.secure(ca, "callee", app)
        ca.kill()
        ends = min(total(s.metrics(), "outrigger_mtls_certificate_expires_seconds") for s in (a, b))
        _, bad = self.load(a, min(5, ends - time.time() - 2), rate=50)
        self.assertEqual(bad, [])
        a.wait_log("cannot be renewed", timeout_s=20 * SLOW)
        wait_for("the end of the certificate", lambda: a.invoke("callee", "x").status == 500, timeout_s=30 * SLOW)
        answer = a.invoke("callee", "x")
        self.assertIn("expired", answer.json["message"])
        ca.start()
        wait_for("a new certificate", lambda: a.invoke("callee", "x").status == 200, timeout_s=30 * SLOW)
        self.assertEqual(b.health(), 204)

    @tag("debug")
    def test_a_restart_in_the_process_needs_no_authority(self):
        ca = self.authority()
        a, b = self.secure(ca, "caller"), self.secure(ca, "callee", self.app())
        ca.kill()
        for count in (1, 2):
            a.signal(signal.SIGHUP)
            a.wait_log("stopped, starting again", count)
            a.wait_log("dapr initialized", count + 1)
            self.assertEqual(a.invoke("callee", "x").status, 200)
        self.assertEqual(a.log().count("fetching initial identity"), 1)
        self.assertEqual(b.health(), 204)

    @tag("debug")
    def test_a_new_root_under_load_through_an_overlap_and_its_end(self):
        old = self.authority(ttl="6s")
        bundle = self.path("anchors.pem")

        def write(text, how):
            target = self.path("anchors-%d.pem" % time.monotonic_ns())
            with open(target, "w") as file:
                file.write(text)
            if how == "link":  # as mounted secrets change
                os.symlink(target, bundle + "~")
                os.replace(bundle + "~", bundle)
            else:
                os.replace(target, bundle)
        write(old.anchors, "link")
        options = dict(flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % old.port],
                       env={"OUTRIGGER_TRUST_ANCHORS_FILE": bundle})
        a, b = self.sidecar("caller", **options), self.sidecar("callee", self.app(), **options)
        results, is_over = [], threading.Event()
        thread = threading.Thread(target=lambda: results.append(self.load(a, 60 * SLOW, is_over=is_over)))
        thread.start()
        new = Authority(self, ttl="6s")
        Authority(self, ttl="6s", folder=new.dir).start().stop()
        write(old.anchors + new.anchors, "link")
        for sidecar in (a, b):
            sidecar.wait_log("trust anchors have changed")
        new.ports["sign"] = old.ports["sign"]  # the new one takes its place
        old.stop()
        new.start()
        wait_for("both to have a certificate of the new root",
                 lambda: all("app=%s" % name in new.log() for name in ("caller", "callee")))
        renewed = [sidecar.log().count("identity renewed") for sidecar in (a, b)]
        write(new.anchors, "rename")
        for sidecar in (a, b):
            sidecar.wait_log("trust anchors have changed", count=2)
        for sidecar, count in zip((a, b), renewed):
            sidecar.wait_log("identity renewed", count=count + 1)
        # a bundle that is broken changes nothing
        write("nonsense", "rename")
        a.wait_log("the former stay")
        is_over.set()
        thread.join()
        count, bad = results[0]
        self.assertGreater(count, 0)
        self.assertEqual(bad, [])
        # whoever has an identity of the old root only is nobody now
        stranger = client_context(old.pki.leaf("URI:spiffe://public/ns/default/caller"))
        with self.assertRaises((OSError, EOFError)):
            with socket.create_connection(("127.0.0.1", b.internal), timeout=WAIT_S) as sock:
                with stranger.wrap_socket(sock) as tls:
                    if not tls.recv(100):
                        raise EOFError

class Control(Mtls):
    @tag("debug")
    def test_files_as_sentry_has_them(self):
        ca = self.authority()
        for name in ("ca.crt", "issuer.crt", "issuer.key"):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(ca.dir, name)).st_mode), 0o600, name)
        pki = ca.pki
        self.assertIn("OK", openssl("verify", "-CAfile", pki.path("ca.crt"), pki.path("issuer.crt")))
        root, issuer = (openssl("x509", "-in", pki.path(n), "-noout", "-text") for n in ("ca.crt", "issuer.crt"))
        self.assertIn("Subject: O = localhost\n", root)
        self.assertIn("Subject: O = spiffe://localhost/ns/default/dapr-sentry\n", issuer)
        self.assertIn("Certificate Sign, CRL Sign", issuer)
        before = {n: os.stat(pki.path(n)).st_mtime_ns for n in ("ca.crt", "issuer.crt", "issuer.key")}
        self.assertEqual(ca.stop(), 0)
        ca.start()
        self.assertEqual({n: os.stat(pki.path(n)).st_mtime_ns for n in before}, before)

    @tag("debug")
    def test_files_that_do_not_fit_are_named_and_left_alone(self):
        ca = self.authority()
        ca.stop()
        os.unlink(os.path.join(ca.dir, "issuer.key"))
        ca.launch()
        self.assertEqual(ca.process.wait(WAIT_S), 1)
        self.assertIn("issuer.key: ", ca.log())
        self.assertFalse(os.path.exists(os.path.join(ca.dir, "issuer.key")))
        openssl("genpkey", "-algorithm", "ed25519", "-out", os.path.join(ca.dir, "issuer.key"))
        ca.launch()
        self.assertEqual(ca.process.wait(WAIT_S), 1)
        self.assertIn("issuer.key is not the key of", ca.log())

    @tag("debug")
    def test_chains_made_elsewhere(self):
        for kind, option in (("ec", ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")),
                             ("rsa", ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"))):
            folder = self.path(kind)
            os.makedirs(folder)
            root, key = os.path.join(folder, "root.key"), os.path.join(folder, "issuer.key")
            openssl("genpkey", *option, "-out", root)
            openssl("genpkey", *option, "-out", key)
            openssl("req", "-new", "-x509", "-key", root, "-subj", "/O=r", "-days", "30", "-out", os.path.join(folder, "ca.crt"))
            openssl("req", "-new", "-x509", "-key", root, "-subj", "/O=r", "-days", "30", "-out", os.path.join(folder, "ca.crt"))
            Pki(folder, made=True).sign("issuer", key, "basicConstraints=critical,CA:TRUE\n", os.path.join(folder, "ca.crt"), root,
                                        subject="/O=i")
            ca = self.authority(folder=folder)
            app = self.app()
            a = self.secure(ca, "caller-" + kind)
            self.secure(ca, "callee-" + kind, app)
            self.assertEqual(a.invoke("callee-" + kind, "x").status, 200)

    @tag("debug")
    def test_nothing_is_issued_beyond_the_issuers_end(self):
        pki = Pki(self.path("short"))
        openssl("genpkey", "-algorithm", "ed25519", "-out", pki.path("issuer.key"))
        pki.sign("issuer", pki.path("issuer.key"), "basicConstraints=critical,CA:TRUE\n", pki.path("ca.crt"), pki.path("root.key"),
                 subject="/O=issuer", days="-1")
        ca = Authority(self, folder=pki.dir).launch()
        self.assertEqual(ca.process.wait(WAIT_S), 1)
        self.assertIn("expired", ca.log())

    @tag("debug")
    def test_only_h2_is_spoken_and_other_methods_are_unknown(self):
        ca = self.authority()
        self.assertEqual(call(ca.ports["health"].number, "GET", "/other").status, 404)
        for alpn in ((), ("http/1.1",)):
            with socket.create_connection(("127.0.0.1", ca.port), timeout=WAIT_S) as sock:
                try:
                    with client_context(alpn=alpn).wrap_socket(sock) as tls:
                        self.assertEqual(tls.recv(100), b"")
                except (ssl.SSLError, OSError):
                    pass
        with socket.create_connection(("127.0.0.1", ca.port), timeout=WAIT_S) as sock:
            tls = client_context().wrap_socket(sock)
            with Peer(sock=tls, is_client=True) as peer:
                stream = peer.call("/dapr.proto.sentry.v1.CA/Other")
                self.assertEqual(dict(stream.heads[-1])["grpc-message"],
                                 "unknown method Other for service dapr.proto.sentry.v1.CA")
                stream = peer.call("/dapr.proto.sentry.v1.CA/SignCertificate", b"\x0a\x01a\x22\x01n")
                self.assertEqual(dict(stream.heads[-1])["grpc-message"], "invalid request: CSR is required")
