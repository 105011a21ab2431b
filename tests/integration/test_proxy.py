"""gRPC calls of any service through two sidecars: all four kinds, deadlines, cancellation, broken streams."""
import struct
import threading
import time

import h2raw
from h2raw import message
from harness import WAIT_S, Case, Sidecar, wait_for

KIB, MIB = 1024, 1024 * 1024


class GrpcApp:
    """run(app, peer, stream) in the thread of its connection, for each request as soon as its head is there."""

    def __init__(self, run):
        self.run, self.seen, self.lock = run, [], threading.Lock()
        self.server = h2raw.Server(self.serve)
        self.port = self.server.port

    def serve(self, peer):
        while True:
            stream = peer.until_request(timeout_s=600, whole=False)
            with self.lock:
                self.seen.append((peer, stream))
            self.run(self, peer, stream)

    def one(self):
        return wait_for("a call at the app", lambda: self.seen and self.seen[0])


def head(peer, stream, extra=()):
    peer.send_headers(stream.id, [(":status", "200"), ("content-type", "application/grpc"), *extra])


def end(peer, stream, status="0", extra=()):
    peer.send_headers(stream.id, [("grpc-status", status), *extra], True)


def echo(app, peer, stream):
    """Each message back as it comes, then OK."""
    head(peer, stream, [("x-init", "i"), ("x-init-bin", "AAE")])
    sent = 0
    while True:
        peer.until("more of the request", lambda: stream.is_over or len(stream.messages) > sent, 600)
        for one in stream.messages[sent:]:
            peer.send_data(stream.id, message(one))
            sent += 1
        if stream.is_over:
            break
    if stream.reset is None:
        end(peer, stream, extra=[("x-trail", "t"), ("x-trail-bin", "AAI")])


class Proxied(Case):
    def pair_of(self, run):
        app = GrpcApp(run)
        self.addCleanup(app.server.close)
        callee = self.sidecar("callee", app.port, flags=["--app-protocol", "grpc"])
        caller = self.sidecar("caller")
        return caller, callee, app

    def client(self, sidecar, **more):
        peer = h2raw.Peer(port=sidecar.ports["grpc"].number, **more)
        self.addCleanup(peer.close)
        peer.until_frame(h2raw.SETTINGS)
        return peer

    def begin(self, peer, extra=(), target="callee", method="Do"):
        return peer.begin(h2raw.call_headers("/test.v1.Echo/" + method, extra=[("dapr-app-id", target), *extra]))

    def test_messages_go_both_ways_while_the_call_is_open(self):
        caller, _, app = self.pair_of(echo)
        peer = self.client(caller)
        stream = self.begin(peer)
        for i in range(5):
            peer.send_data(stream.id, message(b"m%d" % i))
            peer.until("echo %d" % i, lambda: len(stream.messages) == i + 1)
        peer.send_data(stream.id, b"", True)
        peer.until_over(stream)
        self.assertEqual(stream.messages, [b"m%d" % i for i in range(5)])
        self.assertEqual(stream.status, 0)
        for name, value in (("x-init", "i"), ("x-init-bin", "AAE"), ("x-trail", "t"), ("x-trail-bin", "AAI")):
            self.assertEqual(stream.header(name), value)
        got = app.one()[1]
        self.assertEqual(got.header("dapr-caller-app-id"), "caller")
        self.assertEqual(got.header("dapr-callee-app-id"), "callee")

    def test_a_deadline_travels_and_ends_the_call_on_both_sides(self):
        caller, _, app = self.pair_of(lambda app, peer, stream: peer.until("reset", lambda: stream.reset is not None, 600))
        peer = self.client(caller)
        began = time.monotonic()
        stream = peer.until_over(peer.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "callee"), ("grpc-timeout", "300m")]))
        took = time.monotonic() - began
        self.assertEqual(stream.status, 4)
        self.assertEqual(stream.header("grpc-message"), "context deadline exceeded")
        self.assertGreater(took, 0.25)
        _, got = app.one()
        timeout = got.header("grpc-timeout")
        left_s = int(timeout[:-1]) * {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1}[timeout[-1]]
        self.assertTrue(0 < left_s <= 0.3, timeout)
        wait_for("the reset at the app", lambda: got.reset is not None)
        self.assertEqual(got.reset, h2raw.CANCEL)

    def test_a_deadline_that_passes_behind_the_head_is_told_in_the_trailers(self):
        def run(app, peer, stream):
            head(peer, stream)
            peer.send_data(stream.id, message(b"first"))
            peer.until("reset", lambda: stream.reset is not None, 600)
        caller, _, app = self.pair_of(run)
        peer = self.client(caller)
        stream = self.begin(peer, [("grpc-timeout", "400m")])
        peer.until_over(stream)
        self.assertEqual(stream.messages, [b"first"])
        self.assertEqual(stream.status, 4)

    def test_a_client_that_cancels_cancels_the_app(self):
        caller, _, app = self.pair_of(lambda app, peer, stream: peer.until("reset", lambda: stream.reset is not None, 600))
        peer = self.client(caller)
        stream = self.begin(peer)
        _, got = app.one()
        peer.send(h2raw.rst(stream.id))
        wait_for("the reset at the app", lambda: got.reset is not None)
        self.assertEqual(got.reset, h2raw.CANCEL)
        peer.sync()  # the connection lives

    def test_a_client_that_vanishes_cancels_the_app(self):
        caller, _, app = self.pair_of(lambda app, peer, stream: peer.until("reset", lambda: stream.reset is not None, 600))
        peer = self.client(caller)
        self.begin(peer)
        _, got = app.one()
        peer.close()
        wait_for("the reset at the app", lambda: got.reset is not None)

    def test_what_the_app_resets_is_told_as_a_status(self):
        codes = {h2raw.CANCEL: 1, h2raw.ENHANCE_YOUR_CALM: 8, h2raw.INTERNAL_ERROR: 13, h2raw.REFUSED_STREAM: 14}

        def run(app, peer, stream):
            peer.send(h2raw.rst(stream.id, int(stream.header("x-code"))))
        caller, _, _ = self.pair_of(run)
        peer = self.client(caller)
        for code, status in codes.items():
            stream = peer.until_over(peer.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "callee"), ("x-code", str(code))]))
            self.assertEqual(stream.status, status, code)

    def test_a_stream_that_the_app_breaks_ends_with_a_status(self):
        def run(app, peer, stream):
            head(peer, stream)
            peer.send_data(stream.id, message(b"first"))
            peer.sync()
            peer.sock.close()
        caller, _, _ = self.pair_of(run)
        peer = self.client(caller)
        stream = peer.until_over(self.begin(peer))
        self.assertEqual(stream.messages, [b"first"])
        self.assertEqual(stream.status, 14)

    def test_trailers_only_stay_so(self):
        def run(app, peer, stream):
            peer.respond(stream.id, None, 5, "no%20such", trailers=[("x-t", "v"), ("grpc-status-details-bin", "CAU")])
        caller, _, _ = self.pair_of(run)
        peer = self.client(caller)
        stream = peer.until_over(peer.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "callee")]))
        self.assertEqual(len(stream.heads), 1)
        self.assertEqual(stream.status, 5)
        self.assertEqual(stream.header("grpc-message"), "no%20such")
        self.assertEqual(stream.header("x-t"), "v")
        self.assertEqual(stream.header("grpc-status-details-bin"), "CAU")

    def test_an_app_that_is_away_is_unavailable_at_once(self):
        caller, callee, app = self.pair_of(echo)
        peer = self.client(caller)
        app.server.close()
        began = time.monotonic()
        stream = peer.until_over(peer.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "callee")]))
        self.assertEqual(stream.status, 14)
        callee.kill()
        stream = peer.until_over(peer.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "callee")]))
        self.assertEqual(stream.status, 14)
        self.assertLess(time.monotonic() - began, 2.5)  # no pauses between tries

    def test_who_reads_nothing_costs_a_window(self):
        count = 40

        def run(app, peer, stream):
            """As much as the windows take, on every stream."""
            if stream.header("x-last"):
                return peer.respond(stream.id, None)
            if not hasattr(peer, "left"):
                peer.left, peer.has_news, note = {}, threading.Event(), peer.note
                peer.note = lambda got: (note(got), peer.has_news.set())
                threading.Thread(target=flood, args=(peer,), daemon=True).start()
            head(peer, stream)
            peer.left[stream.id] = peer.initial = next(f.settings for f in peer.frames if f.type == h2raw.SETTINGS).get(
                h2raw.INITIAL_WINDOW_SIZE, 65535)
            peer.has_news.set()

        sent = {}

        def flood(peer):
            block, connection = message(b"z" * (16 * KIB - 5)), 65535
            while True:
                grown = [f for f in list(peer.frames) if f.type == h2raw.WINDOW_UPDATE]
                connection_left = connection + sum(struct.unpack(">I", f.payload)[0] for f in grown if f.stream == 0) - sum(sent.values())
                for id_ in list(peer.left):
                    left = peer.left[id_] + sum(struct.unpack(">I", f.payload)[0] for f in grown if f.stream == id_) - sent.get(id_, 0)
                    if min(left, connection_left) >= len(block):
                        peer.send_data(id_, block)
                        sent[id_] = sent.get(id_, 0) + len(block)
                        connection_left -= len(block)
                peer.has_news.wait(WAIT_S)
                peer.has_news.clear()

        caller, callee, _ = self.pair_of(run)
        peer = self.client(caller, window=False, with_settings={h2raw.INITIAL_WINDOW_SIZE: 0}, receive_buffer=64 * KIB)
        warm = peer.until_frame(h2raw.SETTINGS)
        self.assertTrue(warm)
        before = caller.pss_kib(), callee.pss_kib()
        for _ in range(count):
            self.begin(peer)
        wait_for("streams at the app", lambda: len(sent) == count)

        def is_quiet():
            """While other calls go through all hops and back."""
            total = sum(sent.values())
            for _ in range(20):
                peer.until_over(self.begin(peer, [("x-last", "1")]))
            return sum(sent.values()) == total
        wait_for("rest", is_quiet)
        after = caller.pss_kib(), callee.pss_kib()
        for was, now in zip(before, after):
            self.assertLessEqual((now - was) / count, 256 + 40, "KiB a stream, before %r after %r" % (before, after))
        other = self.client(caller)
        self.assertTrue(other.begin)  # all others are served: a call to nobody is answered
        stream = other.until_over(other.begin_call("/test.v1.Echo/Do", message(b"x"), [("dapr-app-id", "nobody")]))
        self.assertEqual(stream.status, 2)

    def test_a_thousand_streams_on_one_connection(self):
        caller, _, _ = self.pair_of(lambda app, peer, stream: peer.respond(stream.id, [b"x"]) if stream.header("x-last") else None)
        peer = self.client(caller)
        streams = [self.begin(peer) for _ in range(999)]
        last = peer.until_over(self.begin(peer, [("x-last", "1")]))
        self.assertEqual(last.status, 0)
        for stream in streams:
            peer.send(h2raw.rst(stream.id))
        again = peer.until_over(self.begin(peer, [("x-last", "1")]))
        self.assertEqual(again.status, 0)
