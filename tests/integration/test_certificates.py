"""Peers that are not what they should be, on both sides of a connection: each is refused for one reason, which is the
same in the metric, in the log and (where somebody waits for one) in the answer; and nobody else is affected."""
import re
import socket
import ssl
import subprocess
import threading

from h2raw import Peer
from harness import SLOW, WAIT_S, Client, call, tag, wait_for
from pki import Mtls, Pki, client_context, server_context, total, uri_der


class Witness(threading.Thread):
    """Calls all the time what has nothing to do with it."""

    def __init__(self, port, target):
        super().__init__(daemon=True)
        self.port, self.target, self.is_over, self.count, self.bad = port, target, threading.Event(), 0, []
        self.start()

    def run(self):
        with Client(self.port) as client:
            while not self.is_over.wait(0.02):
                answer = client.call("GET", self.target)
                self.count += 1
                if answer.status != 200:
                    self.bad.append(answer)

    def finish(self):
        self.is_over.set()
        self.join()
        return self.bad


def identities(pki, other, good):
    """[(name, (chain, key), reason)]: whom nobody believes."""
    nul = uri_der(good[4:].encode() + b"\0.evil.example")
    root = pki.path("ca.crt")
    return [
        ("wrong authority", other.leaf(good), "untrusted"),
        ("issuer missing", pki.leaf(good, with_issuer=False), "untrusted"),
        ("self-signed", pki.self_signed(good), "untrusted"),
        ("self-signed with the root behind it", joined(pki, pki.self_signed(good), root), "untrusted"),
        ("expired", pki.leaf(good, life=(-3600, -60)), "expired"),
        ("not yet valid", pki.leaf(good, life=(3600, 7200)), "not_yet_valid"),
        ("wrong names", pki.leaf("DNS:callee,DNS:localhost,IP:127.0.0.1"), "identity"),
        ("another scheme", pki.leaf("URI:https://public/ns/default/callee"), "identity"),
        ("NUL in the name", pki.leaf(nul), "identity"),
        ("no name at all", pki.leaf(None), "identity"),
        ("two of them", pki.leaf(good + ",URI:spiffe://public/ns/default/other"), "identity"),
        ("an authority's own", authority_leaf(pki, good), "identity"),
    ]


def joined(pki, identity, more):
    pki.count += 1
    path = pki.path("joined%d.pem" % pki.count)
    with open(path, "w") as out:
        for part in (identity[0], more):
            with open(part) as file:
                out.write(file.read())
    return path, identity[1]


def authority_leaf(pki, san):
    pki.count += 1
    key = pki.path("authority%d.key" % pki.count)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    leaf = pki.sign("authority%d" % pki.count, key, "basicConstraints=critical,CA:TRUE\nsubjectAltName=critical,%s\n" % san,
                    pki.path("issuer.crt"), pki.path("issuer.key"))
    return joined(pki, (leaf, key), pki.path("issuer.crt"))


def old_context(make, *more):
    context = make(*more)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Incoming(Mtls):
    """Client to server: a sidecar is called by them."""

    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.callee = self.secure(self.ca, "callee", self.app())
        self.caller = self.secure(self.ca, "caller")
        self.assertEqual(self.caller.invoke("callee", "x").status, 200)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.callee.internal), timeout=WAIT_S)

    def shake(self, context):
        """A handshake, and a call if there is anybody to take it: true when it was answered."""
        with self.connect() as sock:
            try:
                with Peer(sock=context.wrap_socket(sock), is_client=True) as peer:
                    stream = peer.begin([(":method", "GET"), (":path", "/x"), (":scheme", "https"), (":authority", "callee"),
                                         ("dapr-callee-app-id", "callee")], ends=True)
                    peer.until("an answer or the end", lambda: stream.is_over or peer.is_closed)
                    return bool(stream.heads)
            except (ssl.SSLError, OSError, EOFError):
                return False

    def send(self, data):
        with self.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(1000):
                    pass
            except OSError:
                pass
        return False

    def truncated(self, keep):
        """The first bytes of a real handshake, then the end."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        hello = outgoing.read()
        return self.send(hello[:int(len(hello) * keep)])

    def renegotiate(self):
        chain, key = self.ca.pki.leaf("URI:spiffe://public/ns/default/caller")
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % self.callee.internal, "-tls1_2", "-alpn", "h2", "-cert", chain,
                               "-cert_chain", chain, "-key", key], input=b"R\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=30 * SLOW)
        self.assertIn(b"RENEGOTIATING", done.stdout)
        return False

    @tag("debug", "tsan")
    def test_each_is_refused_for_one_reason_and_nobody_else_notices(self):
        pki, other = self.ca.pki, Pki(self.path("other"))
        me = "URI:spiffe://public/ns/default/caller"
        rows = [(name, lambda identity=identity: self.shake(client_context(identity)), reason)
                for name, identity, reason in identities(pki, other, me)]
        good = pki.leaf(me)
        rows += [
            ("no certificate", lambda: self.shake(client_context()), "no_certificate"),
            ("no ALPN", lambda: self.shake(client_context(good, alpn=())), "no_alpn"),
            ("another protocol", lambda: self.shake(client_context(good, alpn=("http/1.1",))), "no_alpn"),
            ("TLS 1.1", lambda: self.shake(old_context(client_context, good)), "protocol"),
            ("plain HTTP/1", lambda: self.send(b"GET /x HTTP/1.1\r\nHost: callee\r\n\r\n"), "plain_text"),
            ("plain HTTP/2", lambda: self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"), "plain_text"),
            ("half a hello", lambda: self.truncated(0.5), "closed"),
            ("a hello and no more", lambda: self.truncated(1), "closed"),
            ("renegotiation", self.renegotiate, "renegotiation"),
        ]
        witness = Witness(self.caller.http, "/v1.0/invoke/callee/method/x")
        for name, attempt, reason in rows:
            labels = 'side="server"', 'reason="%s"' % reason
            refused = lambda: total(self.callee.metrics(), "outrigger_mtls_refused_total", *labels)  # noqa: E731
            others = lambda: total(self.callee.metrics(), "outrigger_mtls_refused_total")  # noqa: E731
            before, all_before = refused(), others()
            self.assertFalse(attempt(), name)
            wait_for("%s to be counted as %s" % (name, reason), lambda: refused() > before)
            self.assertEqual(others() - all_before, refused() - before, name)  # as nothing else
            attempts = 1
            while not re.search(r"reason=%s\b" % reason, self.callee.log()):  # it has one line a second, however many come
                attempt()
                attempts += 1
                wait_for("all to be counted", lambda: refused() == before + attempts)
        self.assertTrue(self.shake(client_context(good)))
        self.assertEqual(witness.finish(), [])
        self.assertGreater(witness.count, 0)

    @tag("debug")
    def test_a_trust_domain_that_no_policy_names(self):
        rules = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  accessControl:\n    defaultAction: deny\n"
                 "    policies:\n    - {appId: caller, defaultAction: allow, trustDomain: public, namespace: default}\n")
        guarded = self.secure(self.ca, "guarded", self.app(), config=rules)

        def ask(domain):
            context = client_context(self.ca.pki.leaf("URI:spiffe://%s/ns/default/caller" % domain))
            with socket.create_connection(("127.0.0.1", guarded.internal), timeout=WAIT_S) as sock:
                with Peer(sock=context.wrap_socket(sock), is_client=True) as peer:
                    stream = peer.begin([(":method", "GET"), (":path", "/x"), (":scheme", "https"), (":authority", "guarded"),
                                         ("dapr-callee-app-id", "guarded")], ends=True)
                    return dict(peer.until_over(stream).heads[-1]), stream.body
        self.assertEqual(ask("public")[0][":status"], "200")
        head, body = ask("example.org")
        self.assertEqual((head[":status"], head["outrigger-error"]), ("500", "7"))
        self.assertIn(b"spiffe://example.org/ns/default/caller", body)
        self.assertGreater(total(guarded.metrics(), "dapr_runtime_acl_app_policy_action_blocked_total")
                           + total(guarded.metrics(), "dapr_runtime_acl_global_policy_action_blocked_total"), 0)


class PlainPort(Mtls):
    @tag("debug")
    def test_a_handshake_where_there_is_no_tls(self):
        app = self.app()
        plain = self.sidecar("plain", app)
        caller = self.sidecar("caller")
        witness = Witness(caller.http, "/v1.0/invoke/plain/method/x")
        for context in (client_context(), old_context(client_context)):
            with self.assertRaises((OSError, EOFError)):
                with socket.create_connection(("127.0.0.1", plain.internal), timeout=WAIT_S) as sock:
                    context.wrap_socket(sock)
        wait_for("both to be counted", lambda: total(plain.metrics(), "outrigger_mtls_refused_total", 'reason="tls_on_plain_port"') == 2)
        plain.wait_log("reason=tls_on_plain_port")
        with socket.create_connection(("127.0.0.1", plain.internal), timeout=WAIT_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(sock.recv(100), b"")
        wait_for("it to be counted", lambda: total(plain.metrics(), "outrigger_mtls_refused_total", 'reason="protocol"') == 1)
        # the API ports answer as to any nonsense
        for port in (plain.http, plain.grpc):
            with self.assertRaises((OSError, EOFError)):
                with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as sock:
                    client_context().wrap_socket(sock)
        self.assertEqual(call(plain.http, "GET", "/v1.0/healthz").status, 204)
        self.assertEqual(witness.finish(), [])


class Outgoing(Mtls):
    """Server to client: a sidecar calls them."""

    def serve(self, context, how=None):
        """A port behind which somebody shakes hands (or does `how` with the socket) and answers 200."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def one(sock):
            try:
                if how:
                    how(sock)
                    return
                with Peer(sock=context.wrap_socket(sock, server_side=True), with_settings={0xF0D1: 1}) as peer:
                    while True:
                        stream = peer.until_request()
                        peer.send_headers(stream.id, [(":status", "200"), ("content-length", "2")])
                        peer.send_data(stream.id, b"hi", True)
            except (OSError, EOFError, AssertionError):
                pass
            finally:
                sock.close()

        def accept():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(sock,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def run_rows(self, ca, make_rows):
        """rows: (name, app id, context, how, reason or None)"""
        rows = make_rows(ca.pki, Pki(self.path("other")))
        names = "".join("      %s: '127.0.0.1:%d'\n" % (id_, self.serve(context, how)) for _, id_, context, how, _ in rows)
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n"
                  "    component: static\n    version: v1\n    configuration:\n" + names)
        caller = self.secure(ca, "caller", config=config)
        witness = Witness(caller.http, "/v1.0/invoke/good/method/x")
        answers = {}

        def ask(name, id_):
            answers[name] = caller.invoke(id_, "x", timeout_s=60 * SLOW)
        threads = [threading.Thread(target=ask, args=row[:2]) for row in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log, metrics = caller.log(), caller.metrics()
        for name, id_, _, _, reason in rows:
            answer = answers[name]
            if not reason:
                self.assertEqual((answer.status, answer.body), (200, b"hi"), name)
                continue
            self.assertEqual(answer.status, 500, name)
            self.assertIn("(reason: %s)" % reason, answer.json["message"], name)
            line = next((l for l in log.splitlines() if "a peer was not called" in l and "path=/ns/default/%s " % id_ in l), "")
            self.assertRegex(line, r"reason=%s\b" % reason, name)
            self.assertGreaterEqual(total(metrics, "outrigger_mtls_refused_total", 'side="client"', 'reason="%s"' % reason), 1, name)
        self.assertEqual(witness.finish(), [])
        self.assertGreater(witness.count, 0)

    @tag("debug", "tsan")
    def test_each_is_refused_for_one_reason_and_nobody_else_notices(self):
        def plain(sock):
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        def leave(sock):
            sock.recv(1000)

        def refuse(sock):
            sock.recv(1000)
            sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # alert: handshake failure

        def rows(pki, other):
            def uri(id_, domain="public", ns="default"):
                return "URI:spiffe://%s/ns/%s/%s" % (domain, ns, id_)
            made = [("good", "good", server_context(pki.leaf(uri("good")), pki.anchors), None, None)]
            for n, (name, identity, reason) in enumerate(identities(pki, other, uri("bad"))):
                made.append((name, "bad%d" % n, server_context(identity), None, reason))
            made += [
                ("wrong app", "app", server_context(pki.leaf(uri("someone"))), None, "identity"),
                ("wrong namespace", "ns", server_context(pki.leaf(uri("ns", ns="prod"))), None, "identity"),
                ("other trust domain", "domain", server_context(pki.leaf(uri("domain", "example.org")), pki.anchors), None, None),
                ("no ALPN", "alpn", server_context(pki.leaf(uri("alpn")), alpn=()), None, "no_alpn"),
                ("TLS 1.1", "old", old_context(server_context, pki.leaf(uri("old"))), None, "refused_by_peer"),
                ("plain text", "plain", None, plain, "plain_text"),
                ("leaves in the middle", "leaves", None, leave, "closed"),
                ("refuses us", "refuses", None, refuse, "refused_by_peer"),
            ]
            return made
        self.run_rows(self.authority(), rows)
