"""Service invocation through two sidecars: client -> sidecar -> sidecar -> app."""
import base64
import contextlib
import hashlib
import json
import os
import random
import socket
import ssl
import subprocess
import threading
import time

from harness import (SLOW, WAIT_S, Answer, App, Case, Client, Cut, Reply, call, header, all_headers, pattern, reply_json,
                     tag, wait_for)

MIB = 1024 * 1024


class Basics(Case):
    @tag("debug", "tsan")
    def test_request_and_answer_arrive_as_they_were(self):
        def handler(request):
            return Reply(201, b"\x00\xffbody", [("X-Answer", "yes"), ("Content-Type", "application/x-own")])
        a, _, app = self.pair(handler)
        answer = a.invoke("callee", "some/path?q=1&q=2", "PUT", [("X-Question", "why"), ("Content-Type", "text/x")], b"\x01\x02")
        self.assertEqual((answer.status, answer.body), (201, b"\x00\xffbody"))
        self.assertEqual((answer.header("X-Answer"), answer.header("Content-Type")), ("yes", "application/x-own"))
        seen = app.seen("/some/path")[0]
        self.assertEqual((seen.method, seen.query, seen.body), ("PUT", "q=1&q=2", b"\x01\x02"))
        self.assertEqual((seen.header("X-Question"), seen.header("Content-Type")), ("why", "text/x"))
        self.assertEqual(all_headers(seen.headers, "dapr-caller-app-id"), ["caller"])
        self.assertEqual(all_headers(seen.headers, "dapr-callee-app-id"), ["callee"])
        self.assertIsNone(seen.header("destination-app-id"))

    @tag("debug")
    def test_every_form_of_naming_the_target(self):
        a, _, app = self.pair()
        basic = base64.b64encode(b"dapr-app-id:callee").decode()
        for target, headers in (("/v1.0/invoke/callee/method/x", []), ("/v1.0/invoke/callee.default/method/x", []),
                                ("/x", [("dapr-app-id", "callee")]), ("/x", [("Authorization", "Basic " + basic)]),
                                ("/v1.0/invoke/http://127.0.0.1:%d/method/x" % app.port, [])):
            self.assertEqual(a.call("GET", target, headers).status, 200, (target, headers))
        self.assertEqual(len(app.seen("/x")), 5)

    def test_both_ways_and_to_oneself(self):
        first, second = self.app(), self.app()
        a, b = self.sidecar("first", first), self.sidecar("second", second)
        for sidecar, target, app in ((a, "second", second), (b, "first", first), (a, "first", first)):
            before = len(app.seen("/x"))
            self.assertEqual(sidecar.invoke(target, "x").status, 200)
            self.assertEqual(len(app.seen("/x")), before + 1)

    def test_unknown_app_is_named_in_the_error(self):
        a = self.sidecar("caller")
        answer = a.invoke("nobody", "x")
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_DIRECT_INVOKE"))
        self.assertIn("nobody", answer.json["message"])

    @tag("debug")
    def test_10_head_204_304_cookies_and_interim_answers(self):
        def handler(request):
            if request.path == "/cookies":
                return Reply(200, b"", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2037 07:28:00 GMT")])
            if request.path == "/none":
                return Reply(204)
            if request.path == "/same":
                return Reply(304, b"", [("ETag", '"x"')])
            if request.path == "/early":
                request.sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            return Reply(200, b"x" * 1000, [("Content-Type", "text/plain")])
        a, _, _ = self.pair(handler)
        with Client(a.http) as client:  # one connection: framing of each is right or the next one breaks
            prefix = "/v1.0/invoke/callee/method/"
            self.assertEqual(all_headers(client.call("GET", prefix + "cookies").headers, "set-cookie"),
                             ["a=1", "b=2; Expires=Wed, 21 Oct 2037 07:28:00 GMT"])
            self.assertEqual(client.call("HEAD", prefix + "big").status, 200)
            self.assertEqual(client.call("GET", prefix + "none").status, 204)
            self.assertEqual(client.call("GET", prefix + "same").status, 304)
            self.assertEqual(client.call("GET", prefix + "early").status, 200)
            self.assertEqual(len(client.call("GET", prefix + "big").body), 1000)

    @tag("debug")
    def test_10_header_of_64_kib_passes_when_allowed(self):
        a, _, app = self.pair(lambda r: Reply(200, b"", [("X-Big", r.header("X-Big") or "")]),
                              flags=["--read-buffer-size", "128Ki"])
        big = "b" * 65536
        answer = a.invoke("callee", "x", headers=[("X-Big", big)])
        self.assertEqual((answer.status, answer.header("X-Big")), (200, big))

    def test_header_over_the_limit_is_431(self):
        a, _, app = self.pair()
        self.assertEqual(a.invoke("callee", "x", headers=[("X-Big", "b" * 65536)]).status, 431)
        self.assertEqual(a.invoke("callee", "x").status, 200)
        self.assertEqual(len(app.seen("/x")), 1)

    @tag("debug")
    def test_10_trailers_travel_both_ways(self):
        def handler(request):
            return Reply(200, iter([b"one", b"two"]), trailers=[("X-Sum", "seven"), ("X-Got", header(request.trailers, "X-Mine") or "")])
        a, _, app = self.pair(handler)
        with Client(a.http) as client:
            client.send_request("POST", "/v1.0/invoke/callee/method/x", [("Trailer", "X-Mine"), ("TE", "trailers")],
                                iter([b"ab", b"cd"]), [("X-Mine", "five")])
            answer = client.read_answer("POST")
        self.assertEqual(answer.body, b"onetwo")
        self.assertEqual(app.seen("/x")[0].body, b"abcd")
        self.assertEqual((header(answer.trailers, "X-Sum"), header(answer.trailers, "X-Got")), ("seven", "five"))

    def test_12_tokens_do_not_cross_a_hop(self):
        app = self.app()
        a = self.sidecar("caller", env={"DAPR_API_TOKEN": "caller-secret"})
        self.sidecar("callee", app, env={"APP_API_TOKEN": "app-secret"})
        self.assertEqual(a.invoke("callee", "x").status, 401)
        self.assertEqual(a.invoke("callee", "x", headers=[("dapr-api-token", "caller-secret")]).status, 200)
        self.assertEqual(all_headers(app.seen("/x")[0].headers, "dapr-api-token"), ["app-secret"])

    def test_38_internal_headers_from_outside_are_replaced(self):
        a, _, app = self.pair()
        forged = [("dapr-caller-app-id", "boss"), ("dapr-callee-app-id", "boss"), ("dapr-caller-namespace", "boss"),
                  ("destination-app-id", "boss")]
        self.assertEqual(a.invoke("callee", "x", headers=forged).status, 200)
        self.assertNotIn("boss", [v for _, v in app.seen("/x")[0].headers])

    def test_40_forwarding_headers_are_added_once(self):
        a, _, app = self.pair()
        a.invoke("callee", "x")
        for name in ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded"):
            values = all_headers(app.seen("/x")[0].headers, name)
            self.assertEqual(len(values), 1, name)
            self.assertNotIn(",", values[0])

    def test_pipelined_requests_are_answered_in_order(self):
        gate = threading.Event()

        def handler(request):
            if request.path == "/0":
                gate.wait(WAIT_S)
            return Reply(200, request.path.encode())
        a, _, app = self.pair(handler)
        with Client(a.http) as client:
            client.send("".join("GET /v1.0/invoke/callee/method/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(20)))
            wait_for("the first", lambda: app.seen("/0"))
            for _ in range(20):  # time enough for the others to overtake it
                self.assertEqual(a.invoke("callee", "other").status, 200)
            gate.set()
            self.assertEqual([client.read_answer().body for _ in range(20)], [b"/%d" % i for i in range(20)])

    @tag("debug")
    def test_unix_domain_socket(self):
        app = self.app()
        sockets = self.path("s")
        os.mkdir(sockets)
        self.sidecar("callee", app)
        a = self.sidecar("caller", flags=["--unix-domain-socket", sockets], is_ready=False)
        path = os.path.join(sockets, "dapr-caller-http.socket")
        wait_for("readiness", lambda: call(path, "GET", "/v1.0/healthz").status == 204)
        self.assertEqual(call(path, "GET", "/v1.0/invoke/callee/method/x").status, 200)
        self.assertEqual(a.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_29_listening_on_ipv6(self):
        if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6") or not open("/proc/net/if_inet6").read():
            self.skipTest("no IPv6 here")
        app = self.app(host="::1")
        a = self.sidecar("six", app, host="[::1]", flags=["--app-channel-address", "::1"])
        self.assertEqual(a.invoke("six", "x").status, 200)

    def test_max_concurrency_bounds_parallel_calls(self):
        lock, now, peak, leave = threading.Lock(), [0], [0], threading.Semaphore(0)

        def handler(request):
            with lock:
                now[0] += 1
                peak[0] = max(peak[0], now[0])
            leave.acquire(timeout=WAIT_S)
            with lock:
                now[0] -= 1
            return Reply(200, b"ok")
        app = self.app(handler)
        a = self.sidecar("caller")
        self.sidecar("callee", app, flags=["--app-max-concurrency", "3"])

        def let_go():
            """One after the other: each place that becomes free is taken before the next one does."""
            for count in range(3, 21):
                wait_for("call %d" % count, lambda: len(app.seen("/x")) >= count)
                leave.release()
            leave.release(2)
        threading.Thread(target=let_go, daemon=True).start()
        answers = self.parallel(20, lambda i: a.invoke("callee", "x").status)
        self.assertEqual(answers, [200] * 20)
        self.assertEqual(peak[0], 3)

    def parallel(self, count, fn):
        results = [None] * count

        def one(i):
            try:
                results[i] = fn(i)
            except Exception as error:  # noqa: the caller compares
                results[i] = error
        threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def test_14_more_calls_than_one_connection_carries(self):
        gate = threading.Event()

        def handler(request):
            gate.wait(20)
            return Reply(200, b"ok")
        a, _, app = self.pair(handler)
        threading.Thread(target=lambda: (wait_for("300 calls", lambda: len(app.seen("/x")) == 300, 20), gate.set()),
                         daemon=True).start()
        self.assertEqual(self.parallel(300, lambda i: a.invoke("callee", "x", timeout_s=40).status), [200] * 300)


class Streaming(Case):
    SIZE = 256 * MIB // (1 if SLOW == 1 else 8)

    def watch_memory(self, *sidecars):
        """Peak growth in KiB while the returned function was not called."""
        done, peak = threading.Event(), [0]
        base = [s.rss_kib() for s in sidecars]

        def watch():
            while not done.wait(0.01):
                peak[0] = max([peak[0]] + [s.rss_kib() - b for s, b in zip(sidecars, base)])
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()

        def stop():
            done.set()
            thread.join()
            return peak[0]
        return stop

    def growth_limit_kib(self):
        return 12 * 1024 if SLOW == 1 else 64 * 1024

    def warm(self, a):
        for _ in range(20):
            a.invoke("callee", "warm", "POST", body=b"x" * 65536)

    @tag("debug")
    def test_09_large_chunked_request_in_constant_memory(self):
        digest = hashlib.sha256()

        def handler(request):
            size = 0
            for piece in request.pieces:
                digest.update(piece) if request.path == "/up" else None
                size += len(piece)
            return Reply(200, b"%d" % size)
        a, b, _ = self.pair(handler, stream=True, flags=["--max-body-size", "0"])
        self.warm(a)
        body, sent = pattern(self.SIZE)
        stop = self.watch_memory(a, b)
        answer = a.invoke("callee", "up", "POST", body=body, timeout_s=100)
        growth = stop()
        self.assertEqual((answer.status, answer.body), (200, b"%d" % self.SIZE))
        self.assertEqual(digest.hexdigest(), sent())
        self.assertLess(growth, self.growth_limit_kib())

    @tag("debug")
    def test_09_large_chunked_answer_in_constant_memory(self):
        bodies = {}

        def handler(request):
            if request.path == "/warm":
                return Reply(200, b"w")
            pieces, bodies["digest"] = pattern(self.SIZE)
            return Reply(200, pieces)
        a, b, _ = self.pair(handler)
        self.warm(a)
        stop = self.watch_memory(a, b)
        digest, size = hashlib.sha256(), 0
        with Client(a.http, timeout_s=100) as client:
            client.send_request("GET", "/v1.0/invoke/callee/method/down")
            status, headers, _ = client.read_head()
            for piece in client.body_pieces("GET", status, headers, []):
                digest.update(piece)
                size += len(piece)
        growth = stop()
        self.assertEqual((status, size, digest.hexdigest()), (200, self.SIZE, bodies["digest"]()))
        self.assertLess(growth, self.growth_limit_kib())

    @tag("debug")
    def test_09_a_reader_that_stops_holds_the_writer(self):
        sent = {"/endless": 0, "/other": 0}

        def body(path):
            while True:
                sent[path] += 65536
                yield b"z" * 65536
        a, b, _ = self.pair(lambda r: Reply(200, body(r.path)))
        stop = self.watch_memory(a, b)
        with Client(a.http) as client:
            client.send_request("GET", "/v1.0/invoke/callee/method/endless")
            client.read_head()
            with Client(a.http) as other:
                other.send_request("GET", "/v1.0/invoke/callee/method/other")
                status, headers, _ = other.read_head()
                pieces = other.body_pieces("GET", status, headers, [])

                def is_held():
                    """While another reader gets a lot."""
                    before, left = sent["/endless"], 16 * MIB
                    while left > 0:
                        left -= len(next(pieces))
                    return sent["/endless"] == before
                wait_for("the writer to be held", is_held)
            self.assertLess(sent["/endless"], 32 * MIB)  # socket buffers of three hops and our windows
        self.assertLess(stop(), self.growth_limit_kib())
        self.assertEqual(a.health(), 204)

    def test_body_pieces_are_passed_on_at_once(self):
        go = threading.Event()

        def body():
            yield b"first"
            go.wait(10)
            yield b"second"
        a, _, _ = self.pair(lambda r: Reply(200, body()))
        with Client(a.http) as client:
            client.send_request("GET", "/v1.0/invoke/callee/method/slow")
            status, headers, _ = client.read_head()
            pieces = client.body_pieces("GET", status, headers, [])
            self.assertEqual(next(pieces), b"first")
            go.set()
            self.assertEqual(b"".join(pieces), b"second")

    def test_request_and_answer_stream_at_the_same_time(self):
        def handler(request):
            return Reply(200, (piece.upper() for piece in request.pieces))
        a, _, _ = self.pair(handler, stream=True)
        with Client(a.http) as client:
            client.send("POST /v1.0/invoke/callee/method/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send("3\r\nabc\r\n")
            status, headers, _ = client.read_head()
            pieces = client.body_pieces("POST", status, headers, [])
            self.assertEqual(next(pieces), b"ABC")
            client.send("3\r\ndef\r\n")
            self.assertEqual(next(pieces), b"DEF")
            client.send("0\r\n\r\n")
            self.assertEqual(list(pieces), [])

    @tag("debug")
    def test_39_an_answer_cut_off_is_no_clean_end(self):
        def body():
            yield b"x" * 100000
            raise Cut()
        a, _, _ = self.pair(lambda r: Reply(200, body()))
        with Client(a.http) as client:
            client.send_request("GET", "/v1.0/invoke/callee/method/cut")
            with self.assertRaises((EOFError, OSError)):
                client.read_answer()
        self.assertEqual(a.health(), 204)

    @tag("debug")
    def test_client_that_leaves_ends_the_call_at_the_app(self):
        ended = threading.Event()

        def body(request):
            yield b"tick"
            with contextlib.suppress(OSError):
                self.assertEqual(request.sock.recv(1), b"")
            ended.set()
            raise Cut()
        a, b, _ = self.pair(lambda r: Reply(200, body(r)))
        before = (a.descriptors(), b.descriptors())
        client = Client(a.http)
        client.send_request("GET", "/v1.0/invoke/callee/method/ticks")
        client.read_head()
        client.reset()
        self.assertTrue(ended.wait(10 * SLOW))
        wait_for("descriptors to be closed", lambda: a.descriptors() <= before[0] + 4 and b.descriptors() <= before[1] + 2)

    def test_request_body_over_the_limit(self):
        a, _, app = self.pair(flags=["--max-body-size", "64Ki"])
        answer = a.invoke("callee", "x", "POST", body=b"x" * 65537)
        self.assertIn(answer.status, (413, 500))
        self.assertEqual(a.invoke("callee", "x", "POST", body=b"x" * 1000).status, 200)


class WebSockets(Case):
    KEY = "dGhlIHNhbXBsZSBub25jZQ=="

    def handler(self, request):
        """Upgrades, then sends back what comes, upper case, until the peer closes."""
        if request.header("Upgrade") is None:
            return Reply(400, b"")
        accept = base64.b64encode(hashlib.sha1((request.header("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
                                  .digest()).decode()
        request.sock.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Accept: %s\r\n\r\nhello" % accept).encode())
        have = request.reader.have
        while True:
            piece = have or request.sock.recv(65536)
            have = b""
            if not piece:
                return None
            request.sock.sendall(piece.upper())

    def open(self, a, target="/v1.0/invoke/callee/method/ws"):
        client = Client(a.http)
        client.send("GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % (target, self.KEY))
        status, headers, _ = client.read_head()
        return client, status, headers

    @tag("debug")
    def test_upgrade_passes_through_two_sidecars(self):
        a, b, _ = self.pair(self.handler)
        client, status, headers = self.open(a)
        self.assertEqual(status, 101)
        self.assertEqual(header(headers, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(client.reader.exact(5), b"hello")
        for size in (1, 1000, 500000):
            threading.Thread(target=client.send, args=(b"a" * size,), daemon=True).start()
            self.assertEqual(client.reader.exact(size), b"A" * size)
        client.close()

    def test_upgrade_to_the_own_app(self):
        app = self.app(self.handler)
        a = self.sidecar("self", app)
        client, status, _ = self.open(a, "/v1.0/invoke/self/method/ws")
        self.assertEqual((status, client.reader.exact(5)), (101, b"hello"))
        client.close()

    def test_refused_upgrade_is_an_ordinary_answer(self):
        a, _, _ = self.pair(lambda r: Reply(403, b"no"))
        client, status, headers = self.open(a)
        self.assertEqual(status, 403)
        self.assertEqual(b"".join(client.body_pieces("GET", status, headers, [])), b"no")
        client.close()

    def test_either_side_closing_ends_the_other(self):
        closed = threading.Event()

        def handler(request):
            self.handler(request)
            closed.set()
        a, _, app = self.pair(handler)
        client, status, _ = self.open(a)
        client.reader.exact(5)
        client.close()
        self.assertTrue(closed.wait(10 * SLOW))
        client, _, _ = self.open(a)
        client.reader.exact(5)
        app.drop_connections()
        with self.assertRaises((EOFError, OSError)):
            client.reader.exact(1)
        client.close()


class Failures(Case):
    @tag("debug")
    def test_13_stale_keep_alive_connections_are_not_noticed(self):
        """The app closes each connection a moment after its answer, without saying so, often just as the next
        request is written to it."""
        def handler(request):
            request.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            time.sleep(random.random() * 0.003)  # the moment is what is tried out
            return None
        a, _, app = self.pair(handler)
        for i in range(200):
            answer = a.invoke("callee", "x")
            self.assertEqual((answer.status, answer.body), (200, b"ok"), "%d: %r" % (i, answer))

    @tag("debug")
    def test_18_a_post_that_was_sent_is_never_repeated(self):
        def handler(request):
            raise Cut()
        a, _, app = self.pair(handler)
        for i in range(10):
            answer = a.invoke("callee", "charge/%d" % i, "POST", body=b"10 EUR")
            self.assertEqual(answer.status, 500)
        for i in range(10):
            self.assertEqual(len(app.seen("/charge/%d" % i)), 1)

    def test_18_a_post_on_a_reused_connection_is_never_repeated(self):
        def handler(request):
            if request.method == "POST":
                raise Cut()
            return Reply(200, b"ok")
        a, _, app = self.pair(handler)
        for i in range(10):
            self.assertEqual(a.invoke("callee", "warm").status, 200)
            a.invoke("callee", "charge/%d" % i, "POST", body=b"10 EUR")
            self.assertEqual(len(app.seen("/charge/%d" % i)), 1)

    @tag("debug")
    def test_17_callee_restarts_on_a_new_port(self):
        app = self.app()
        a, b = self.sidecar("caller"), self.sidecar("callee", app)
        for kill in (False, True):
            self.assertEqual(a.invoke("callee", "x").status, 200)
            b.kill() if kill else b.stop()
            b = self.sidecar("callee", app)
            self.assertEqual(a.invoke("callee", "x").status, 200)

    @tag("debug")
    def test_30_two_instances_one_dies(self):
        first, second = self.app(lambda r: Reply(200, b"1")), self.app(lambda r: Reply(200, b"2"))
        a = self.sidecar("caller")
        b1, _ = self.sidecar("callee", first), self.sidecar("callee", second)
        wait_for("both to be called", lambda: a.invoke("callee", "x").status == 200 and first.seen("/x") and second.seen("/x"))
        b1.kill()
        for i in range(50):
            answer = a.invoke("callee", "x")
            self.assertEqual((answer.status, answer.body), (200, b"2"), i)

    def test_caller_starts_before_the_callee(self):
        a = self.sidecar("caller")
        self.assertEqual(a.invoke("callee", "x").status, 500)
        app = self.app()
        self.sidecar("callee", app)
        self.assertEqual(wait_for("the call", lambda: a.invoke("callee", "x").status == 200), True)

    @tag("debug")
    def test_app_late_gone_and_back(self):
        app = self.app(is_up=False)
        a = self.sidecar("caller")
        b = self.sidecar("callee", app, is_ready=False)
        wait_for("the servers", lambda: b.health("/v1.0/healthz/outbound") == 204)
        self.assertEqual(b.health(), 500)
        self.assertEqual(a.invoke("callee", "x").status, 500)
        app.up()
        b.wait_ready()
        self.assertEqual(a.invoke("callee", "x").status, 200)
        app.down()
        answer = a.invoke("callee", "x")
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_DIRECT_INVOKE"))
        app.up()
        self.assertEqual(a.invoke("callee", "x").status, 200)

    def test_unhealthy_app_is_not_called(self):
        healthy = threading.Event()

        def handler(request):
            if request.path == "/healthz":
                return Reply(200 if healthy.is_set() else 503)
            return Reply(200, b"ok")
        healthy.set()
        app = self.app(handler)
        a = self.sidecar("caller")
        self.sidecar("callee", app, flags=["--enable-app-health-check", "--app-health-probe-interval", "1",
                                           "--app-health-probe-timeout", "500", "--app-health-threshold", "1"])
        wait_for("health", lambda: a.invoke("callee", "x").status == 200)
        healthy.clear()
        wait_for("sickness", lambda: a.invoke("callee", "x").status == 500)
        healthy.set()
        wait_for("recovery", lambda: a.invoke("callee", "x").status == 200)

    def test_an_app_that_answers_garbage(self):
        def handler(request):
            request.sock.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        a, _, _ = self.pair(handler)
        answer = a.invoke("callee", "x")
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_DIRECT_INVOKE"))

    @tag("tsan")
    def test_many_clients_and_a_callee_that_comes_and_goes(self):
        """Nothing but 200 and clear errors; never a wrong body; at the end it all works."""
        app = self.app(lambda r: Reply(200, r.path.encode()))
        a = self.sidecar("caller")
        stable = self.sidecar("callee", app)
        over, wrong = threading.Event(), []

        def client(n):
            i = 0
            while not over.is_set():
                i += 1
                try:
                    answer = a.invoke("callee", "%d/%d" % (n, i))
                    if answer.status == 200 and answer.body != b"/%d/%d" % (n, i) or answer.status not in (200, 500):
                        wrong.append(answer)
                except OSError as error:
                    wrong.append(error)
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for kill in (True, False, True):
            other = self.app(app.handler)
            passing = self.sidecar("callee", other)
            wait_for("its share of the calls", lambda: len(other.seen()) >= 20)
            passing.kill() if kill else passing.stop()
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual((a.invoke("callee", "x").status, stable.health()), (200, 204))


def authority(folder):
    """A certificate authority of its own: ca.pem, and server.pem and client.pem with keys."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=authority")
    for name in ("server", "client"):
        with open(os.path.join(folder, "names"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", *key, "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "30", "-extfile", "names", "-out", name + ".pem")
    return {name: open(os.path.join(folder, name)).read() for name in ("ca.pem", "client.pem", "client.key")}


class Endpoints(Case):
    """HTTPEndpoint resources: headers and certificates, also from a secret store, also loaded anew."""

    SECRETS = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: %s}]
"""
    ENDPOINT = """
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: outside}
spec:
  baseUrl: %s://127.0.0.1:%d/base
  headers:
  - {name: X-Plain, value: "1"}
  - {name: X-Key, secretKeyRef: {name: %s}}
%sauth: {secretStore: %s}
"""

    def secrets(self, values):
        path = os.path.join(self.dir, "secrets.json")
        with open(path, "w") as file:
            json.dump(values, file)
        return self.SECRETS % path

    def test_headers_from_a_secret_store_and_after_a_reload(self):
        app = self.app()
        vault = self.secrets({"one": "first", "two": "second"})
        a = self.sidecar("caller", resources={"v.yaml": vault, "e.yaml": self.ENDPOINT % ("http", app.port, "one", "", "vault")})
        self.assertEqual(a.invoke("outside", "x").status, 200)
        a.write("e.yaml", self.ENDPOINT % ("http", app.port, "two", "", "vault"))
        wait_for("the new header", lambda: a.invoke("outside", "y").status == 200
                 and app.seen("/base/y")[-1].header("X-Key") == "second")
        first = app.seen("/base/x")[0]
        self.assertEqual((first.header("X-Plain"), first.header("X-Key")), ("1", "first"))

    def test_without_its_secret_nothing_is_called(self):
        app = self.app()
        vault = self.secrets({"one": "first"})
        a = self.sidecar("caller", resources={"v.yaml": vault, "e.yaml": self.ENDPOINT % ("http", app.port, "gone", "", "vault")})
        b = self.sidecar("other", resources={"e.yaml": self.ENDPOINT % ("http", app.port, "one", "", "nowhere")})
        for sidecar, what in ((a, "gone"), (b, "nowhere")):
            answer = sidecar.invoke("outside", "x")
            self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_DIRECT_INVOKE"))
            self.assertIn("HTTPEndpoint outside", answer.json["message"])
            self.assertIn(what, answer.json["message"])
        self.assertEqual(app.seen(), [])

    @tag("debug")
    def test_a_server_that_asks_for_a_certificate(self):
        pem = authority(self.dir)
        app = self.app()
        app.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        app.tls.load_cert_chain(os.path.join(self.dir, "server.pem"), os.path.join(self.dir, "server.key"))
        app.tls.load_verify_locations(os.path.join(self.dir, "ca.pem"))
        app.tls.verify_mode = ssl.CERT_REQUIRED
        vault = self.secrets({"one": "first", "ca": pem["ca.pem"], "cert": pem["client.pem"], "key": pem["client.key"]})
        tls = "  clientTLS:\n" + "".join("    %s: {secretKeyRef: {name: %s}}\n" % pair for pair in (
            ("rootCA", "ca"), ("certificate", "cert"), ("privateKey", "key")))
        a = self.sidecar("caller", resources={"v.yaml": vault, "e.yaml": self.ENDPOINT % ("https", app.port, "one", tls, "vault")})
        self.assertEqual(a.invoke("outside", "x").status, 200)
        self.assertEqual(app.seen("/base/x")[0].header("X-Key"), "first")
        a.write("e.yaml", self.ENDPOINT % ("https", app.port, "one", "", "vault"))  # trusts nobody it knows
        wait_for("a refusal", lambda: a.invoke("outside", "x").status == 500)
