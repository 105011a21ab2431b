"""Who serves an app id: a real etcd as registry."""
import signal

from etcd_server import EtcdServer, needs_etcd
from harness import Case, Port, Reply, tag, wait_for
from pki import Pki, client_context, openssl
from test_discovery import config, labels_at


@needs_etcd
class Etcd(Case):
    def server(self, *options, **more):
        return EtcdServer(self, *options, **more).start()

    def config(self, server, **settings):
        return config("etcd", **{"endpoints": server.host, "leaseTTL": "2s", **settings})

    @tag("debug", "tsan")
    def test_a_sidecar_registers_is_found_and_leaves(self):
        server, app = self.server(), self.app()
        a = self.sidecar("waiter", config=self.config(server))
        self.assertEqual(a.invoke("kitchen", "x").status, 500)
        b = self.sidecar("kitchen", app, config=self.config(server), flags=("--labels", "zone=a,version=2"))
        key, = [k for k in server.keys() if "/kitchen/" in k]
        self.assertTrue(key.startswith("/outrigger/instances/default/kitchen/"), key)
        self.assertTrue(server.keys()[key]["address"].endswith(":%d" % b.internal))
        self.assertEqual(server.keys()[key]["labels"], {"version": "2", "zone": "a"})
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        self.assertEqual(labels_at(a, "kitchen"), {b.internal: {"version": "2", "zone": "a"}})
        self.assertEqual(b.stop(), 0)
        self.assertNotIn(key, server.keys())
        self.assertEqual(a.stop(), 0)
        self.assertEqual(server.keys(), {})

    @tag("debug")
    def test_what_etcd_tells_is_used_at_once_and_nonsense_is_not(self):
        server = self.server()
        a = self.sidecar("waiter", config=self.config(server))
        b = self.sidecar("kitchen", self.app(lambda r: Reply(200, b"b")), config=self.config(server))
        self.assertEqual(a.invoke("kitchen", "x").body, b"b")
        own, = [k for k in server.keys() if "/kitchen/" in k]
        prefix = "/outrigger/instances/"
        for key, value in (("default/kitchen/1", "{"), ("default/kitchen/2", []), ("default/kitchen/3", {"address": "x:1"}),
                           ("default/kitchen/4", {"address": "127.0.0.1:0"}), ("default/kitchen", {"address": "127.0.0.1:1"}),
                           ("default/kitchen/5/6", {"address": "127.0.0.1:1"}), ("default/%zz/7", {"address": "127.0.0.1:1"}),
                           ("default//8", {"address": "127.0.0.1:1"}), ("", "x"), ("default/kitchen/9", ""),
                           ("default/kitchen/10", {"address": "127.0.0.1:%d" % b.internal, "labels": {"a b": 1, "zone": []}})):
            server.put(prefix + key, value)
        self.sidecar("kitchen", self.app(lambda r: Reply(200, b"c")), config=self.config(server))
        wait_for("the new one", lambda: a.invoke("kitchen", "x").body == b"c", 60)
        server.remove(own)
        wait_for("its coming back", lambda: own in server.raw(), 60)  # somebody took it away: it says so again

    @tag("debug")
    def test_etcd_that_is_killed_and_comes_back_is_watched_again(self):
        server = self.server()
        a = self.sidecar("waiter", config=self.config(server))
        b = self.sidecar("kitchen", self.app(lambda r: Reply(200, b"b")), config=self.config(server))
        self.assertEqual(a.invoke("kitchen", "x").body, b"b")
        server.kill()
        a.wait_log("etcd does not tell who is there", timeout_s=60)
        for _ in range(20):
            self.assertEqual(a.invoke("kitchen", "x").body, b"b")
        server.start()
        a.wait_log("etcd is there", timeout_s=60)
        wait_for("the registration", lambda: [k for k in server.keys() if "/kitchen/" in k], 60)
        self.sidecar("kitchen", self.app(lambda r: Reply(200, b"c")), config=self.config(server))
        wait_for("the new one", lambda: a.invoke("kitchen", "x").body == b"c", 60)
        server.kill()
        server.wipe()  # an empty registry does not empty the mesh
        server.start()
        a.wait_log("etcd is there", 2, timeout_s=60)
        self.assertIn(a.invoke("kitchen", "x").body, (b"b", b"c"))
        wait_for("all registrations", lambda: len(server.keys()) == 3, 60)
        self.assertEqual(b.stop(), 0)

    @tag("debug")
    def test_etcd_that_hangs_costs_no_call(self):
        server = self.server()
        a = self.sidecar("waiter", config=self.config(server))
        self.sidecar("kitchen", self.app(), config=self.config(server, leaseTTL="60s"))
        self.sidecar("cellar", self.app(), config=self.config(server, leaseTTL="60s"))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        server.process.send_signal(signal.SIGSTOP)
        self.addCleanup(server.process.send_signal, signal.SIGCONT)
        for name in ("kitchen", "cellar") * 20:  # one that was never asked for, too
            self.assertEqual(a.invoke(name, "x", timeout_s=4).status, 200)
        self.assertEqual(a.stop(), 0)

    def test_what_is_known_outlives_etcd_and_a_restart(self):
        server = self.server()
        a = self.sidecar("waiter", config=self.config(server))
        self.sidecar("kitchen", self.app(), config=self.config(server))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        server.kill()
        self.assertEqual(a.stop(), 0)
        a.start()
        self.assertEqual(a.invoke("kitchen", "x").status, 200)  # from disk
        answer = a.invoke("nobody", "x")
        self.assertEqual(answer.status, 500)
        self.assertIn(b"etcd", answer.body)
        server.start()
        wait_for("the registration", lambda: any("/waiter/" in k for k in server.keys()), 60)

    def test_a_killed_sidecar_is_gone_with_its_lease(self):
        server = self.server()
        b = self.sidecar("kitchen", self.app(), config=self.config(server))
        self.assertEqual(len(server.keys()), 1)
        b.kill()
        wait_for("the end of the lease", lambda: server.keys() == {}, 60)

    @tag("debug")
    def test_user_and_password_are_shown(self):
        server = self.server()
        server.secure("mesh", "secret")
        wrong = self.sidecar("waiter", config=self.config(server, username="mesh", password="no"))
        wrong.wait_log("authentication failed", timeout_s=60)
        self.assertNotIn("secret", wrong.log())
        self.assertEqual(server.keys(), {})
        self.assertIn(b"authentication failed", wrong.invoke("kitchen", "x").body)
        a = self.sidecar("waiter", config=self.config(server, username="mesh", password="secret"))
        self.sidecar("kitchen", self.app(), config=self.config(server, username="mesh", password="secret"))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)

    @tag("debug")
    def test_tokens_that_end_are_replaced(self):
        key, pub = self.path("jwt.key"), self.path("jwt.pub")
        openssl("genrsa", "-traditional", "-out", key, "2048")
        openssl("rsa", "-in", key, "-pubout", "-out", pub)
        server = self.server("--auth-token", "jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=2s" % (pub, key))
        server.secure("mesh", "secret")
        b = self.sidecar("kitchen", self.app(), config=self.config(server, username="mesh", password="secret"))
        own, = server.raw()
        for _ in range(2):
            token = server.token
            wait_for("the end of a token that is younger than its", lambda: server.raw() and server.token != token, 60)
        server.remove(own)  # which it hears by a watch that goes on
        wait_for("its coming back", lambda: own in server.raw(), 60)
        token = server.token
        wait_for("the end of another one", lambda: server.raw() and server.token != token, 60)
        self.assertEqual(b.stop(), 0)
        self.assertEqual(server.raw(), {})

    @tag("debug")
    def test_tls_with_a_certificate_of_ones_own(self):
        pki = Pki(self.path("pki"))
        cert, key = pki.leaf("IP:127.0.0.1")
        mine, my_key = pki.leaf("DNS:me")
        server = self.server("--cert-file", cert, "--key-file", key, "--trusted-ca-file", pki.path("ca.crt"), "--client-cert-auth",
                             scheme="https", context=client_context((mine, my_key), alpn=("http/1.1",)))
        good = self.config(server, endpoints="https://" + server.host, ca=pki.path("ca.crt"), cert=mine, key=my_key)
        self.sidecar("kitchen", self.app(), config=good)
        self.assertEqual(self.sidecar("waiter", config=good).invoke("kitchen", "x").status, 200)
        other = Pki(self.path("other"))
        for settings in ({"ca": other.path("ca.crt"), "cert": mine, "key": my_key}, {"ca": pki.path("ca.crt")}):
            a = self.sidecar("stranger", config=self.config(server, tlsEnable="true", **settings))
            a.wait_log("etcd does not tell who is there", timeout_s=60)
            self.assertFalse([k for k in server.keys() if "/stranger/" in k])

    def test_several_servers_are_tried_in_turn(self):
        server, dead = self.server(), Port()
        endpoints = "http://127.0.0.1:%d,http://%s/" % (dead.number, server.host)
        for _ in range(3):
            a = self.sidecar("kitchen", self.app(), config=self.config(server, endpoints=endpoints))
            wait_for("the registration", lambda: server.keys(), 60)
            self.assertEqual(a.stop(), 0)
            self.assertEqual(server.keys(), {})

    @tag("debug")
    def test_a_server_that_has_lost_the_others_is_left(self):
        first, *others = EtcdServer.cluster(self, 3)
        endpoints = ",".join(server.host for server in others)
        b = self.sidecar("kitchen", self.app(), config=self.config(first, endpoints=first.host))
        for server in others:
            server.process.send_signal(signal.SIGSTOP)
            self.addCleanup(server.process.send_signal, signal.SIGCONT)
        b.wait_log("etcd does not tell who is there", timeout_s=60)
        for server in others:
            server.process.send_signal(signal.SIGCONT)
        b.wait_log("etcd is there", timeout_s=60)
        c = self.sidecar("cellar", self.app(), config=self.config(first, endpoints=endpoints))
        wait_for("the other", lambda: b.invoke("cellar", "x").status == 200, 60)
        self.assertEqual([b.stop(), c.stop()], [0, 0])

    @tag("debug")
    def test_one_that_hangs_or_talks_nonsense_is_told_of_and_stops_nothing(self):
        web = self.app(lambda r: Reply(200, b"<html>"))
        for endpoint in ("127.0.0.1:%d" % web.port, "nobody.invalid:1"):
            a = self.sidecar("waiter", self.app(), config=config("etcd", endpoints=endpoint))
            a.wait_log("etcd does not tell who is there", timeout_s=60)
            self.assertEqual(a.invoke("kitchen", "x").status, 500)
            self.assertEqual(a.invoke("waiter", "x").status, 200)
            self.assertEqual(a.stop(), 0)

    def test_more_than_a_page_of_instances_is_read(self):
        server = self.server()
        for i in range(1100):
            server.put("/outrigger/instances/default/app-%04d/x" % i, {"address": "127.0.0.1:1"})
        self.sidecar("kitchen", self.app(), config=self.config(server))
        self.sidecar("zzz-last", self.app(), config=self.config(server))
        a = self.sidecar("waiter", config=self.config(server))
        self.assertEqual(a.invoke("zzz-last", "x").status, 200)

    def test_mistakes_are_named(self):
        for settings, text in (({}, "endpoints"), ({"endpoints": " , "}, "endpoints"), ({"endpoints": "a/b:1"}, "a/b:1"),
                               ({"endpoints": "a:1", "leaseTTL": "0s"}, "leaseTTL"),
                               ({"endpoints": "a:1", "keyPrefixPath": "//"}, "keyPrefixPath"),
                               ({"endpoints": "a:1", "cert": "/nowhere"}, "cert"),
                               ({"endpoints": "a:1", "tlsEnable": "true", "ca": "-----BEGIN nonsense"}, "")):
            a = self.sidecar("waiter", config=config("etcd", **settings))
            a.wait_log("name resolution failed to start", timeout_s=60)
            line, = [line for line in a.log().splitlines() if "name resolution failed to start" in line]
            self.assertIn(text, line)
            self.assertEqual(a.stop(), 0)
