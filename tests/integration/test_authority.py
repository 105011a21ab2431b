"""outrigger-control ca: what it grants and refuses (sentry.jsonl direct.*), tokens it asks for and tokens it gives."""
import base64
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.parse

from h2raw import Peer, message
from harness import SLOW, WAIT_S, Client, Port, Reply, call, reply_json, tag, wait_for
from pki import Authority, Mtls, Pki, client_context, openssl, read, server_context, total

AUDIENCE = "spiffe://localhost/ns/default/dapr-sentry"


# ---------------------------------------------------------------- protobuf by hand
def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(n):
    out = b""
    while n >= 128:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def fields(data):
    """[(number, value)]"""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value
    while at < len(data):
        tag_ = number()
        if tag_ & 7 == 0:
            found.append((tag_ >> 3, number()))
        else:
            n = number()
            found.append((tag_ >> 3, data[at:at + n]))
            at += n
    return found


class Answered:
    def __init__(self, status, text, data):
        self.status, self.text, self.fields = status, text, fields(data) if data else []

    def all(self, number):
        return [v for n, v in self.fields if n == number]

    @property
    def chain(self):
        return self.all(1)[0].decode()

    @property
    def jwt(self):
        """Of the StringValue in field 4; None: it is not there."""
        found = self.all(4)
        return fields(found[0])[0][1].decode() if found else None

    @property
    def per_audience(self):
        entries = [dict(fields(e)) for e in self.all(5)]
        return {e[1].decode(): fields(e[2])[0][1].decode() for e in entries}


def ask(ca, id="myapp", namespace="default", csr=b"", trust_domain="", token="", validator=0, audiences=()):
    body = b"".join(field(n, v) for n, v in ((1, id), (2, token), (3, trust_domain), (4, namespace), (5, csr), (6, validator)) if v)
    body += b"".join(field(7, a) for a in audiences)
    with socket.create_connection(("127.0.0.1", ca.port), timeout=WAIT_S) as sock:
        with Peer(sock=client_context().wrap_socket(sock), is_client=True) as peer:
            stream = peer.call("/dapr.proto.sentry.v1.CA/SignCertificate", body)
            text = urllib.parse.unquote(stream.header("grpc-message") or "")
            return Answered(stream.status, text, stream.messages[0] if stream.messages else None)


# ---------------------------------------------------------------- tokens by the openssl program
def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unurl64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Keys:
    """Of somebody who vouches for apps."""

    def __init__(self, case, name="voucher"):
        self.path = case.path(name + ".pem")
        openssl("genrsa", "-out", self.path, "2048")
        self.kid = name

    @property
    def jwks(self):
        modulus = openssl("rsa", "-in", self.path, "-noout", "-modulus").strip().partition("=")[2]
        return {"keys": [{"kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", "n": url64(bytes.fromhex(modulus)), "e": "AQAB"}]}

    def token(self, subject, audience=AUDIENCE, head=None, **claims):
        whole = {"aud": audience, "sub": subject, "exp": int(time.time()) + 300, **claims}
        text = ".".join(url64(json.dumps(p).encode()) for p in (head or {"alg": "RS256", "kid": self.kid}, whole))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.path], check=True, input=text.encode(),
                                   capture_output=True).stdout
        return text + "." + url64(signature)


def claims_of(token):
    return json.loads(unurl64(token.split(".")[1]))


class Requests(Mtls):
    """sentry.jsonl direct.*"""

    def csr(self, name, key=("-algorithm", "ed25519"), subject="/", extra=()):
        key_path, path = self.path(name + ".key"), self.path(name + ".csr")
        openssl("genpkey", *key, "-out", key_path)
        openssl("req", "-new", "-key", key_path, "-subj", subject, "-out", path, *extra)
        return read(path).encode()

    def check_granted(self, ca, name, answer, key, life=86400):
        self.assertEqual((answer.status, answer.text), (0, ""), name)
        path = self.path(name + ".pem")
        with open(path, "w") as file:
            file.write(answer.chain)
        text = openssl("x509", "-in", path, "-noout", "-text")
        self.assertIn("Subject: \n", text, name)
        self.assertIn(key, text, name)
        self.assertIn("X509v3 Subject Alternative Name: critical\n                URI:spiffe://public/ns/default/myapp\n", text, name)
        self.assertEqual(answer.chain.count("BEGIN CERTIFICATE"), 2, name)
        self.assertEqual([r.decode() for r in answer.all(2)], [ca.anchors], name)
        issuer = self.path("asked-issuer.pem")
        with open(issuer, "w") as file:
            file.write(answer.chain[answer.chain.index("-----END CERTIFICATE-----") + 26:])
        self.assertIn("OK", openssl("verify", "-CAfile", ca.pki.path("ca.crt"), "-untrusted", issuer, path), name)
        return text

    @tag("debug")
    def test_keys_of_any_kind_and_no_name_but_the_one_asked_for(self):
        ca = self.authority()
        ed = self.csr("ed")
        rows = [
            ("ed25519", ed, "ED25519 Public-Key"),
            ("ecdsa", self.csr("p256", ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")), "NIST CURVE: P-256"),
            ("p384", self.csr("p384", ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")), "NIST CURVE: P-384"),
            ("rsa", self.csr("rsa", ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")), "Public-Key: (2048 bit)"),
            ("names", self.csr("names", subject="/CN=evil/O=x", extra=("-addext", "subjectAltName=DNS:evil,URI:spiffe://public/ns/a/b",
                                                                       "-addext", "basicConstraints=CA:TRUE")), "ED25519 Public-Key"),
            ("type-certificate", ed.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"), "ED25519 Public-Key"),
            ("text-before", b"whatever\n" + ed, "ED25519 Public-Key"),
        ]
        for name, csr, key in rows:
            text = self.check_granted(ca, name, ask(ca, csr=csr), key)
            self.assertNotIn("evil", text, name)
            self.assertNotIn("CA:TRUE", text, name)
        # of two in one text the first counts
        answer = ask(ca, csr=self.csr("first") + ed)
        self.check_granted(ca, "two", answer, "ED25519 Public-Key")
        shown = openssl("x509", "-in", self.path("two.pem"), "-noout", "-pubkey")
        self.assertEqual(shown, openssl("pkey", "-in", self.path("first.key"), "-pubout"))
        self.assertEqual(total(ca.metrics(), "dapr_sentry_cert_sign_success_total"), len(rows) + 1)

    @tag("debug")
    def test_what_is_refused_and_how(self):
        ca = self.authority()
        csr = self.csr("good")
        lines = csr.splitlines()
        der = bytearray(base64.b64decode(b"".join(lines[1:-1])))
        der[-1] ^= 1
        forged = lines[0] + b"\n" + base64.encodebytes(bytes(der)) + lines[-1] + b"\n"
        rows = [
            (dict(id=""), 7, "invalid request: parameter app-id cannot be empty"),
            (dict(id="a" * 65), 7, "invalid request: app ID must be 64 characters or less"),
            (dict(id="a.b"), 7, "invalid request: parameter app-id cannot contain dots"),
            (dict(id="a/b"), 13, "failed to sign certificate"),
            (dict(namespace=""), 7, "invalid request: namespace is required"),
            (dict(namespace="a/b"), 13, "failed to sign certificate"),
            (dict(trust_domain="Bad Domain/"), 7, "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"),
            (dict(csr=b""), 7, "invalid request: CSR is required"),
            (dict(csr=b"hello"), 3, "invalid certificate signing request"),
            (dict(csr=csr.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")), 3, "invalid certificate signing request"),
            (dict(csr=forged), 3, "invalid signature"),
            (dict(validator=2, token="a.b.c"), 3, "the requested validator is not enabled"),
            (dict(validator=3, token="a.b.c"), 3, "the requested validator is not enabled"),
            (dict(validator=9, token="a.b.c"), 3, "the requested validator is not enabled"),
        ]
        for changes, status, text in rows:
            answer = ask(ca, **{**dict(csr=csr), **changes})
            self.assertEqual((answer.status, answer.text, answer.fields), (status, text, []), changes)
        for changes, uri in ((dict(id="a" * 64), "public/ns/default/" + "a" * 64), (dict(id="MyApp_1"), "public/ns/default/MyApp_1"),
                             (dict(trust_domain="example.com"), "example.com/ns/default/myapp"),
                             (dict(validator=1, token="a.b.c"), "public/ns/default/myapp"), (dict(token="a.b.c"), "public/ns/default/myapp"),
                             (dict(id="dapr-placement", trust_domain="localhost", namespace="other"), "localhost/ns/other/dapr-placement"),
                             (dict(audiences=("a", "b")), "public/ns/default/myapp")):
            answer = ask(ca, **{**dict(csr=csr), **changes})
            self.assertEqual(answer.status, 0, changes)
            path = self.path("granted.pem")
            with open(path, "w") as file:
                file.write(answer.chain)
            self.assertIn("URI:spiffe://%s\n" % uri, openssl("x509", "-in", path, "-noout", "-ext", "subjectAltName"))
            self.assertIsNone(answer.jwt)
        metrics = ca.metrics()
        self.assertEqual(total(metrics, "dapr_sentry_cert_sign_request_received_total"), len(rows) + 7)
        self.assertEqual(total(metrics, "dapr_sentry_cert_sign_success_total"), 7)
        self.assertEqual(total(metrics, "dapr_sentry_cert_sign_failure_total"), len(rows))
        self.assertEqual(total(metrics, "dapr_sentry_cert_sign_failure_total", 'reason="PermissionDenied"'), 6)
        self.assertEqual(total(metrics, "dapr_sentry_issuercert_changed_total"), 1)
        self.assertRegex(metrics, r"(?m)^dapr_sentry_issuercert_expiry_timestamp\{[^}]*\} \S+$")
        self.assertEqual(ca.health(), 200)

    @tag("debug")
    def test_nobody_gets_more_time_than_the_issuer_has(self):
        pki = Pki(self.path("short"))
        openssl("genpkey", "-algorithm", "ed25519", "-out", pki.path("issuer.key"))
        pki.sign("issuer", pki.path("issuer.key"), "basicConstraints=critical,CA:TRUE\n", pki.path("ca.crt"), pki.path("root.key"),
                 subject="/O=issuer", life=(-60, 10 * SLOW))
        ca = self.authority(folder=pki.dir)
        csr = self.csr("a")
        answer = ask(ca, csr=csr)
        self.assertEqual(answer.status, 0)
        path = self.path("leaf.pem")
        with open(path, "w") as file:
            file.write(answer.chain)
        self.assertEqual(openssl("x509", "-in", path, "-noout", "-enddate"),
                         openssl("x509", "-in", pki.path("issuer.crt"), "-noout", "-enddate"))
        wait_for("the end of the issuer", lambda: ca.health() == 500, 30 * SLOW)
        answer = ask(ca, csr=csr)
        self.assertEqual((answer.status, answer.text), (9, "the issuer's own certificate has expired: nothing is issued"))
        # another issuer of the same root is put in its place
        pki.sign("issuer", pki.path("issuer.key"), "basicConstraints=critical,CA:TRUE\n", pki.path("ca.crt"), pki.path("root.key"),
                 subject="/O=issuer", life=(-60, 3600))
        wait_for("the new issuer", lambda: ca.health() == 200, 30)
        self.assertEqual(ask(ca, csr=csr).status, 0)
        self.assertEqual(total(ca.metrics(), "dapr_sentry_issuercert_changed_total"), 1)


class Vouched(Mtls):
    """spec.mtls.tokenValidators: only who shows a token gets a certificate."""

    def options(self, source, more=""):
        return "    tokenValidators:\n    - name: jwks\n      options:\n        source: %s\n%s" % (source, more)

    def csr(self):
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.path("a.key"))
        openssl("req", "-new", "-key", self.path("a.key"), "-subj", "/", "-out", self.path("a.csr"))
        return read(self.path("a.csr")).encode()

    @tag("debug")
    def test_a_certificate_for_whom_the_token_names_and_nobody_else(self):
        keys, other, csr = Keys(self), Keys(self, "other"), self.csr()
        with open(self.path("jwks.json"), "w") as file:
            json.dump(keys.jwks, file)
        ca = self.authority(mtls=self.options(self.path("jwks.json")))
        me = "spiffe://public/ns/default/myapp"
        good = keys.token(me)
        answer = ask(ca, csr=csr, token=good, validator=3)
        self.assertEqual((answer.status, answer.text), (0, ""))
        forged = keys.token(me).rsplit(".", 1)[0] + "." + other.token(me).rsplit(".", 1)[1]
        for changes, status, text in (
                (dict(validator=0), 3, "a validator name must be specified in this environment"),
                (dict(validator=1), 3, "the requested validator is not enabled"),
                (dict(token=""), 7, "the request does not contain a token"),
                (dict(id="someone"), 7, "token validation failed: subject"),
                (dict(namespace="prod"), 7, "token validation failed: subject"),
                (dict(trust_domain="localhost"), 7, "token validation failed: subject"),
                (dict(token="x"), 7, "token validation failed: malformed"),
                (dict(token=forged), 7, "token validation failed: signature"),
                (dict(token=other.token(me)), 7, "token validation failed: unknown_key"),
                (dict(token=keys.token(me, audience="spiffe://localhost/ns/other/dapr-sentry")), 7, "token validation failed: audience"),
                (dict(token=keys.token(me, exp=int(time.time()) - 100)), 7, "token validation failed: expired"),
                (dict(token=keys.token(me, nbf=int(time.time()) + 500)), 7, "token validation failed: not_yet_valid"),
                (dict(token=keys.token(me, head={"alg": "none"})), 7, "token validation failed: algorithm"),
                (dict(token=keys.token(me, head={"alg": "HS256", "kid": "voucher"})), 7, "token validation failed: algorithm"),
                (dict(token=keys.token([me, me])), 7, "token validation failed: subject"),
                (dict(token="a" * 17000), 7, "token validation failed: too_large")):
            answer = ask(ca, **{**dict(csr=csr, token=good, validator=3), **changes})
            self.assertEqual((answer.status, answer.text, answer.fields), (status, text, []), changes)
        self.assertEqual(ca.health(), 200)

    @tag("debug")
    def test_two_sidecars_with_token_files(self):
        keys = Keys(self)
        ca = self.authority(mtls=self.options("'%s'" % json.dumps(keys.jwks)))
        app, running = self.app(), []
        for name in ("caller", "callee"):
            with open(self.path(name + ".token"), "w") as file:
                file.write(keys.token("spiffe://public/ns/default/" + name) + "\n")
            running.append(self.secure(ca, name, app if name == "callee" else None, env={"DAPR_SENTRY_TOKEN_FILE": self.path(name + ".token")}))
        self.assertEqual(running[0].invoke("callee", "x").status, 200)
        # and one that shows another's token is nobody
        options = ca.flags_for()
        options["env"]["DAPR_SENTRY_TOKEN_FILE"] = self.path("caller.token")
        thief = self.sidecar("thief", is_ready=False, **options)
        self.assertEqual(thief.wait_exit(), 1)
        self.assertIn("code = PermissionDenied desc = token validation failed: subject", thief.log())
        thief.may_end = True

    @tag("debug")
    def test_keys_that_come_by_https_later(self):
        keys, csr, pki = Keys(self), self.csr(), Pki(self.path("web"))
        app = self.app(lambda request: reply_json(keys.jwks))
        app.tls = server_context(pki.leaf("DNS:localhost,IP:127.0.0.1"), alpn=())
        app.down()
        ca = Authority(self, mtls=self.options("https://localhost:%d/keys" % app.port,
                                               "        caCertificate: %s\n        requestTimeout: 2s\n" % pki.path("ca.crt"))).launch()
        wait_for("an authority that waits", lambda: ca.health() == 500)
        token = keys.token("spiffe://public/ns/default/myapp")
        answer = ask(ca, csr=csr, token=token, validator=3)
        self.assertEqual((answer.status, answer.text), (14, "jwks validator not ready"))
        app.up()
        wait_for("the keys", lambda: ca.health() == 200, 40)
        self.assertEqual(ask(ca, csr=csr, token=token, validator=3).status, 0)
        app.down()
        self.assertEqual(ask(ca, csr=csr, token=token, validator=3).status, 0)

    @tag("debug")
    def test_keys_do_not_come_by_way_of_clear_text(self):
        """Whoever answers there in between could lead to keys of his own, by https."""
        keys, pki = Keys(self), Pki(self.path("web"))
        back = lambda request: Reply(302, b"", [("Location", "https://localhost:%d/keys" % app.port)])  # noqa: E731
        between = self.app(back)
        app = self.app(lambda request: reply_json(keys.jwks) if request.path == "/keys"
                       else Reply(302, b"", [("Location", "http://127.0.0.1:%d/" % between.port)]), is_up=False)
        app.tls = server_context(pki.leaf("DNS:localhost,IP:127.0.0.1"), alpn=())
        app.up()
        ca = Authority(self, mtls=self.options("https://localhost:%d/begin" % app.port,
                                               "        caCertificate: %s\n" % pki.path("ca.crt"))).launch()
        wait_for("the refusal", lambda: "it leads from https to clear text" in ca.log())
        self.assertEqual(ca.health(), 500)

    @tag("debug")
    def test_what_is_wrong_with_it_is_told_at_the_start(self):
        for text, said in (("    tokenValidators: [{name: nonsense}]\n", "invalid token validator name: 'nonsense'; supported values: 'jwks'"),
                           ("    tokenValidators: [{name: kubernetes}]\n", "cannot be configured manually"),
                           ("    tokenValidators: [{name: jwks}]\n", "options.source: a key set is needed"),
                           (self.options("'{\"keys\":[]}'"), "a key set without a key for signatures"),
                           (self.options("http://"), "options.source"),
                           (self.options("https://localhost/", "        caCertificate: /nowhere\n"), "options.caCertificate: /nowhere"),
                           ("    tokenValidators: [{name: jwks, options: {source: /a}}, {name: jwks, options: {source: /b}}]\n", "given twice")):
            ca = Authority(self, mtls=text).launch()
            self.assertEqual(ca.process.wait(WAIT_S), 1, text)
            self.assertIn(said, ca.log())
            self.assertFalse(os.path.exists(ca.dir), text)  # and nothing was made


class Tokens(Mtls):
    """--jwt-enabled: identity as a token, with the keys to check it by where OIDC looks for them."""

    def csr(self):
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.path("a.key"))
        openssl("req", "-new", "-key", self.path("a.key"), "-subj", "/", "-out", self.path("a.csr"))
        return read(self.path("a.csr")).encode()

    def verify(self, token, jwks):
        """By openssl, with the key the token names."""
        head, payload, signature = token.split(".")
        key = next(k for k in jwks["keys"] if k["kid"] == json.loads(unurl64(head))["kid"])
        self.assertEqual((key["kty"], key["alg"], key["use"]), ("RSA", "RS256", "sig"))
        n, e = (int.from_bytes(unurl64(key[m]), "big") for m in ("n", "e"))
        self.assertEqual(len(unurl64(signature)), 256)
        plain = pow(int.from_bytes(unurl64(signature), "big"), e, n).to_bytes(256, "big")
        digest = subprocess.run(["openssl", "dgst", "-sha256", "-binary"], check=True, capture_output=True,
                                input=("%s.%s" % (head, payload)).encode()).stdout
        self.assertTrue(plain.startswith(b"\x00\x01\xff") and plain.endswith(digest))
        return json.loads(unurl64(payload))

    @tag("debug")
    def test_tokens_and_their_keys(self):
        oidc = Port()
        ca = self.authority(flags=["--jwt-enabled", "--jwt-issuer", "https://issuer.example", "--jwt-ttl", "1h", "--oidc-enabled",
                                   "--oidc-server-tls-enabled=false", "--oidc-server-listen-address", "127.0.0.1",
                                   "--oidc-server-listen-port", str(oidc.number)])
        answer = ask(ca, csr=self.csr(), audiences=("a", "b c"))
        self.assertEqual((answer.status, answer.text), (0, ""))
        got = call(oidc.number, "GET", "/jwks.json")
        self.assertEqual((got.status, got.header("content-type"), got.header("cache-control")),
                         (200, "application/json", "public, max-age=3600"))
        self.assertEqual(got.body.decode(), read(os.path.join(ca.dir, "jwks.json")))
        tokens = {"public": answer.jwt, **answer.per_audience}
        self.assertEqual(sorted(tokens), ["a", "b c", "public"])
        for audience, token in tokens.items():
            claims = self.verify(token, got.json)
            self.assertEqual((claims["aud"], claims["sub"], claims["iss"], claims["use"]),
                             ([audience], "spiffe://public/ns/default/myapp", "https://issuer.example", "sig"))
            self.assertEqual((claims["exp"] - claims["iat"], claims["iat"] - claims["nbf"]), (3600, 900))
        self.assertEqual(len({claims_of(t)["jti"] for t in tokens.values()}), 3)
        document = call(oidc.number, "GET", "/.well-known/openid-configuration").json
        self.assertEqual((document["issuer"], document["jwks_uri"], document["id_token_signing_alg_values_supported"]),
                         ("https://issuer.example", "https://issuer.example/jwks.json", ["RS256"]))
        self.assertEqual(call(oidc.number, "POST", "/jwks.json").status, 405)
        self.assertEqual(call(oidc.number, "GET", "/jwt.key").status, 404)
        answer = ask(ca, csr=self.csr(), audiences=["a%d" % i for i in range(17)])
        self.assertEqual((answer.status, answer.text), (3, "tokens for more than 16 audiences"))
        # the same key after a restart
        self.assertEqual(ca.stop(), 0)
        ca.start()
        self.verify(ask(ca, csr=self.csr()).jwt, got.json)

    @tag("debug")
    def test_where_the_keys_are_found(self):
        pki, oidc = Pki(self.path("web")), Port()
        chain, key = pki.leaf("DNS:localhost")
        self.authority(flags=["--jwt-enabled", "--oidc-enabled", "--oidc-server-listen-port", str(oidc.number), "--oidc-path-prefix", "/p/",
                              "--oidc-allowed-hosts", "keys.example, localhost", "--oidc-server-tls-cert-file", chain,
                              "--oidc-server-tls-key-file", key])
        context = ssl.create_default_context(cadata=pki.anchors)

        def get(path, host, *more):
            with Client(oidc.number) as client:
                client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
                client.reader.sock = client.sock
                return client.call("GET", path, [("Host", host), ("Connection", "close"), *more])
        document = get("/p/.well-known/openid-configuration", "keys.example:9").json
        self.assertEqual((document["issuer"], document["jwks_uri"]), ("https://keys.example:9", "https://keys.example:9/p/jwks.json"))
        document = get("/p/.well-known/openid-configuration", "localhost", ("X-Forwarded-Host", "keys.example")).json
        self.assertEqual(document["issuer"], "https://keys.example")
        self.assertEqual(get("/p/jwks.json", "localhost").status, 200)
        self.assertEqual(get("/jwks.json", "localhost").status, 404)
        for host in ("evil.example", "keys.example@evil", "a\"b"):
            self.assertIn(get("/p/jwks.json", host).status, (400, 403), host)

    def test_flags_that_do_not_go_together(self):
        for flags, said in ((["--jwt-issuer", "x"], "jwt-issuer cannot be set when jwt-enabled is false"),
                            (["--jwt-enabled", "--oidc-enabled"], "oidc-server-tls-cert-file"),
                            (["--jwt-enabled", "--jwt-ttl", "soon"], "--jwt-ttl")):
            ca = Authority(self, flags=flags).launch()
            self.assertEqual(ca.process.wait(WAIT_S), 2)
            self.assertIn(said, ca.log())
        ca = Authority(self, flags=["--jwt-enabled", "--jwt-signing-algorithm", "HS256"]).launch()
        self.assertEqual(ca.process.wait(WAIT_S), 1)
        self.assertIn("is no algorithm to sign tokens by", ca.log())
