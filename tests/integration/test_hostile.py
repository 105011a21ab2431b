"""Peers that mean no good, and loads that are too much: bounded memory, everyone else is served."""
import os
import random
import socket
import struct
import threading
import time

from harness import SLOW, Case, Client, Reply, call, component, header, tag, wait_for

SMUGGLING = {
    "length and chunked": "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
    "two lengths": "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "list of lengths": "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nabcdef",
    "signed length": "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
    "folded header": "GET /x HTTP/1.1\r\nHost: x\r\nX-A: b\r\n folded: c\r\n\r\n",
    "space before colon": "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nabcde",
    "chunked twice": "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "bad chunk size": "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "huge chunk size": "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n",
    "NUL in header": "GET /x HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
    "NUL in path": "GET /x\0y HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": "GET /x\r\n\r\n",
    "not HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "header without colon": "GET /x HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
}


class Hostile(Case):
    def prefix(self, text):
        return text.replace(" /x", " /v1.0/invoke/callee/method/x", 1)

    @tag("debug")
    def test_37_smuggled_requests_reach_nobody(self):
        a, b, app = self.pair()
        for name, text in SMUGGLING.items():
            with Client(a.http) as client:
                client.send(self.prefix(text))
                try:
                    client.sock.shutdown(socket.SHUT_WR)
                    status, _, _ = client.read_head()
                    allowed = (400, 404, 431, 501, 505) + ((500,) if "chunk size" in name else ())  # broke after its head
                    self.assertIn(status, allowed, name)
                    client.sock.settimeout(5 * SLOW)
                    while client.sock.recv(65536):  # the connection ends; nothing else is answered
                        pass
                except (OSError, EOFError):
                    pass
            self.assertEqual(a.invoke("callee", "fine").status, 200, name)
        self.assertEqual([r.path for r in app.seen() if "evil" in r.path], [])
        for request in app.seen("/x"):  # what came through had one unambiguous length
            self.assertEqual(request.body, b"", request.headers)

    @tag("debug")
    def test_11_what_was_named_is_what_is_called(self):
        a, _, app = self.pair()
        with Client(a.http) as client:
            for target in ("a%2F..%2Fb", "a%23b", "a%3Fb", "a//b", "a/./b", "a/../b", "a%2e%2e/b", "100%25", "%C3%A9"):
                status = client.call("GET", "/v1.0/invoke/callee/method/" + target).status
                self.assertIn(status, (200, 400, 500), target)
        for request in app.seen():
            self.assertFalse(request.path.startswith("/v1.0"), request.path)
            self.assertNotIn("..", request.path.split("/"))

    @tag("debug")
    def test_random_bytes_on_every_port(self):
        a, b, _ = self.pair()
        rng = random.Random(7)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for i in range(300 if SLOW == 1 else 100):
            port = rng.choice([a.http, a.internal, b.internal, a.metrics_port, a.ports["grpc"].number])
            junk = rng.randbytes(rng.randrange(1, 3000))
            start = rng.choice([b"", preface, preface + b"\0\0\0\4\0\0\0\0\0", b"GET / HTTP/1.1\r\n"])
            try:
                with Client(port) as client:
                    client.send(start + junk)
                    client.sock.settimeout(0.02)
                    client.sock.recv(1000)
            except OSError:
                pass
        self.assertEqual((a.health(), b.health(), a.invoke("callee", "x").status), (204, 204, 200))

    def frame(self, type_, flags=0, stream=0, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([type_, flags]) + struct.pack(">I", stream) + payload

    @tag("debug")
    def test_36_http2_floods_end_the_connection_not_the_process(self):
        a, b, _ = self.pair()
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4)
        # ":method GET, :path /, :scheme http" indexed; ":authority x" literal
        head = bytes([0x82, 0x84, 0x86, 0x41, 0x01, 0x78])
        floods = {
            "rapid reset": b"".join(self.frame(1, 5, 2 * i + 1, head) + self.frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(20000)),
            "settings": self.frame(4) * 100000,
            "ping": self.frame(6, 0, 0, b"12345678") * 100000,
            "continuation": self.frame(1, 0, 1, head) + self.frame(9, 0, 1, b"\x40\x01a\x7f" + b"b" * 127) * 50000,
            "window updates": self.frame(8, 0, 0, b"\0\0\0\1") * 100000,
        }
        before = b.rss_kib()
        for port, sidecar in ((b.internal, b), (a.http, a)):
            for name, bytes_ in floods.items():
                try:
                    with Client(port) as client:
                        client.send(preface + bytes_)  # we never read what comes back
                except OSError:
                    pass
                self.assertEqual(sidecar.health(), 204, name)
        self.assertEqual(a.invoke("callee", "x").status, 200)
        self.assertLess(b.rss_kib() - before, 48 * 1024 * SLOW)

    def test_36_slow_and_silent_clients_do_not_hold_others_up(self):
        a, _, _ = self.pair()
        silent = [Client(a.http) for _ in range(200)]
        for i, client in enumerate(silent):
            client.send("GET /v1.0/invoke/callee/method/x HTT" if i % 2 else "POST /v1.0/invoke/callee/method/x HTTP/1.1\r\n"
                        "Host: x\r\nContent-Length: 1000\r\n\r\nabc")
        for _ in range(20):
            self.assertEqual(a.invoke("callee", "fine").status, 200)
        for client in silent:
            client.close()

    @tag("debug")
    def test_15_distinct_urls_do_not_grow_metrics(self):
        """With path labels on, which is the bad case."""
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: c\nspec:\n  metrics:\n    enabled: true\n"
                  "    http:\n      increasedCardinality: true\n")
        a, b, _ = self.pair(config=config)
        count = 10000 if SLOW == 1 else 2000

        def load(begin, end):
            with Client(a.http) as client:
                for i in range(begin, end):
                    client.call("GET", "/v1.0/invoke/callee/method/u/%d" % i)
        load(0, 300)
        before = (a.rss_kib(), b.rss_kib())
        load(300, count)
        for sidecar, was in ((a, before[0]), (b, before[1])):
            text = sidecar.metrics()
            for name in ("dapr_http_server_request_count", "dapr_http_client_completed_count"):
                self.assertLessEqual(sum(line.startswith(name + "{") for line in text.splitlines()), 250, name)
            if SLOW == 1:  # sanitizers keep what was freed
                self.assertLess(sidecar.rss_kib() - was, 4 * 1024)
        self.assertIn('path="other"', a.metrics())

    def test_31_memory_returns_after_a_burst(self):
        a, b, _ = self.pair(lambda r: Reply(200, b"y" * 20000))
        for _ in range(50):
            a.invoke("callee", "warm", "POST", body=b"x" * 20000)
        before = (a.rss_kib("RssAnon"), b.rss_kib("RssAnon"))
        count = 1000

        def burst():
            clients = [Client(a.http, timeout_s=60) for _ in range(count)]
            for client in clients:
                client.send_request("POST", "/v1.0/invoke/callee/method/x", (), b"x" * 20000)
            statuses = {client.read_answer().status for client in clients}
            for client in clients:
                client.close()
            return statuses
        for _ in range(3):
            self.assertEqual(burst(), {200})
        limit = 4 * 1024
        wait_for("memory to come back", lambda: a.rss_kib("RssAnon") - before[0] < limit and b.rss_kib("RssAnon") - before[1] < limit, 30)

    def test_33_nul_in_names_and_keys(self):
        a = self.sidecar("app", resources={"st.yaml": component("st", "state.in-memory")})
        self.assertIn(a.call("GET", "/v1.0/state/st/a%00b").status, (200, 204, 400))
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a\0b", "value": 1}]).status, 204)
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)
        self.assertEqual(a.call("GET", "/v1.0/state/st/a%00b").json, 1)
        self.assertEqual(a.call("GET", "/v1.0/state/st%00x/a").status, 400)

    def test_running_out_of_descriptors_is_survived(self):
        a = self.sidecar("app")
        import resource
        resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (a.descriptors() + 20, 4096))
        clients = []
        try:
            for _ in range(60):
                clients.append(Client(a.http))
        except OSError:
            pass
        ticks = lambda: sum(int(x) for x in open("/proc/%d/stat" % a.pid).read().rsplit(")", 1)[1].split()[11:13])
        before = ticks()
        time.sleep(1)  # what is measured is the time it uses in a second
        self.assertLess(ticks() - before, 30)  # it does not spin on accept
        for client in clients:
            client.close()
        wait_for("service again", lambda: a.health() == 204)
