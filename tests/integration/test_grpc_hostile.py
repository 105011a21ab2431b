"""gRPC peers that mean no good: an error to that call or connection, bounded memory, all others served."""
import gzip
import random
import struct

import h2raw
from h2raw import (CANCEL, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, NO_ERROR, Peer, Server, call_headers, frame, header_block,
                   message, rst, settings, window_update)

from harness import SLOW, Case, tag

HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
GET_STATE = "/dapr.proto.runtime.v1.Dapr/GetState"
NAMED = b"\x0a\x1adapr.proto.runtime.v1.Dapr"
DESCRIBE = message(b"\x22\x1adapr.proto.runtime.v1.Dapr")  # its answer: some 50 KiB
MAX_BODY = 4 * 1024 * 1024


class GrpcHostile(Case):
    def serves(self, port):
        with Peer(port) as peer:
            self.assertEqual(peer.call(HEALTH, NAMED).status, 0)

    def grpc_app(self, run):
        """An app that speaks HTTP/2 by hand, and its two sidecars."""
        server = Server(run)
        self.addCleanup(server.close)
        flags = ["--app-protocol", "grpc"]
        return self.sidecar("caller"), self.sidecar("callee", server.port, flags=flags), server

    @tag("debug")
    def test_bad_calls_cost_a_status_and_the_connection_lives(self):
        sidecar = self.sidecar("app")
        bomb = gzip.compress(b"\0" * (64 << 20))
        calls = {
            "two messages": (message(b"") * 2, (), 13),
            "no message": (b"", (), 13),
            "cut prefix": (b"\0\0", (), 13),
            "cut message": (b"\0\0\0\0\x09abc", (), 13),
            "no protobuf": (message(b"\xff\xff\xff"), (), 13),
            "no UTF-8": (message(b"\x0a\x02\xc3\x28"), (), 13),
            "NUL in text": (message(b"\x0a\x03a\0b"), (), 13),
            "compressed without encoding": (message(b"", 1), (), 13),
            "flag 2": (message(b"", 2), (), 13),
            "unknown encoding": (message(b""), [("grpc-encoding", "br")], 12),
            "no gzip": (message(b"x", 1), [("grpc-encoding", "gzip")], 13),
            "gzip cut": (message(bomb[:1000], 1), [("grpc-encoding", "gzip")], 13),
            "gzip bomb": (message(bomb, 1), [("grpc-encoding", "gzip")], 8),
            "over the limit": (struct.pack(">BI", 0, MAX_BODY + 1) + b"abc", (), 8),
            "nearly 4 GiB": (b"\0\xff\xff\xff\xff", (), 8),
            "bad timeout": (message(b""), [("grpc-timeout", "soon")], 13),
            "bad binary metadata": (message(b""), [("x-bin", "!")], 13),
            "passed deadline": (message(b""), [("grpc-timeout", "0n")], 4),
            "unknown service": (message(b""), (), 2),
        }
        with Peer(sidecar.ports["grpc"].number) as peer:
            for name, (body, extra, status) in calls.items():
                path = "/no.Such/Method" if name == "unknown service" else GET_STATE
                stream = peer.until_over(peer.begin_call(path, body, extra))
                self.assertEqual(stream.status, status, (name, stream.heads))
                self.assertEqual(stream.header(":status"), "200", name)
            # gzip where it is announced, in the messages that say so
            for body in (message(gzip.compress(NAMED), 1), message(NAMED)):
                stream = peer.until_over(peer.begin_call(HEALTH, body, [("grpc-encoding", "gzip")]))
                self.assertEqual((stream.status, stream.messages), (0, [b"\x08\x01"]))
            huge = peer.until_over(peer.begin_call(HEALTH, message(b"\x0a" + b"\x80\x80\x08" + b"x" * (1 << 17)),
                                                   [("grpc-timeout", "99999999H")]))
            self.assertEqual(huge.status, 5)
            self.assertEqual(peer.call(HEALTH, NAMED).status, 0)

    @tag("debug")
    def test_the_largest_message_is_what_the_flags_say(self):
        for flags, limit in (([], 4 << 20), (["--max-body-size", "64Ki"], 64 << 10), (["--dapr-http-max-request-size", "1"], 1 << 20),
                             (["--max-body-size", "0"], None)):
            sidecar = self.sidecar("app", flags=flags)
            with Peer(sidecar.ports["grpc"].number) as peer:
                fits = peer.begin_call(HEALTH, struct.pack(">BI", 0, limit or 64 << 20) + b"abc", ends=False)
                if limit:
                    over = peer.begin_call(HEALTH, struct.pack(">BI", 0, limit + 1) + b"abc", ends=False)
                    self.assertEqual(peer.until_over(over).status, 8, flags)
                    self.assertEqual(over.header("grpc-message"),
                                     "grpc: received message larger than max (%d vs. %d)" % (limit + 1, limit))
                peer.sync()
                self.assertFalse(fits.is_over, flags)
                self.assertEqual(peer.call(HEALTH, NAMED).status, 0)

    @tag("debug")
    def test_what_is_no_grpc_call(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.ports["grpc"].number) as peer:
            for method, type_, status in (("GET", "application/grpc", "405"), ("POST", "application/json", "415"),
                                          ("GET", "text/html", "415"), ("POST", "application/grpc-web", "415")):
                stream = peer.until_over(peer.begin(call_headers(HEALTH, method=method, content_type=type_), ends=True))
                self.assertEqual((stream.header(":status"), stream.status), (status, None))
            no_te = [h for h in call_headers(HEALTH) if h[0] != "te"]
            stream = peer.begin(no_te)
            peer.send_data(stream.id, message(NAMED), True)
            self.assertEqual(peer.until_over(stream).status, 0)
            bad = peer.begin(call_headers(HEALTH, extra=[("te", "gzip"), ("connection", "close")]))  # RFC 9113 8.2.2
            self.assertEqual(peer.until_over(bad).reset, h2raw.PROTOCOL_ERROR)
        self.serves(sidecar.ports["grpc"].number)

    @tag("debug")
    def test_metadata_floods(self):
        sidecar = self.sidecar("app")
        for port in (sidecar.ports["grpc"].number, sidecar.internal):
            with Peer(port) as peer:
                many = [("x-%d" % i, "y" * 1000) for i in range(1500)]
                stream = peer.begin(call_headers(HEALTH, extra=many), ends=True)
                self.assertEqual(peer.until_over(stream).status, 8, stream.heads)
                some = [("x-%d" % i, "y" * 1000) for i in range(300)]  # many CONTINUATIONs, within the limit
                stream = peer.begin(call_headers(HEALTH, extra=some), ends=True)
                self.assertIn(peer.until_over(stream).status, (2, 13))
                stream = peer.begin(call_headers(HEALTH, extra=[("a", "") for _ in range(5000)]), ends=True)
                self.assertEqual(peer.until_over(stream).status, 8)
            before = sidecar.rss_kib()
            with Peer(port) as peer:  # a head without end
                peer.send(frame(h2raw.HEADERS, 0, 1, header_block(call_headers(HEALTH))))
                try:
                    for _ in range(2000):
                        peer.send(*[frame(h2raw.CONTINUATION, 0, 1, header_block([("x", "y" * 100)])) for _ in range(100)])
                except OSError:
                    pass
                try:
                    peer.until_closed()
                except OSError:
                    pass
            self.assertLess(sidecar.rss_kib() - before, 16 * 1024 * SLOW)
        self.serves(sidecar.ports["grpc"].number)

    @tag("debug")
    def test_36_floods_end_their_connection_and_nobody_elses(self):
        sidecar = self.sidecar("app")
        head = header_block(call_headers(HEALTH))

        def resets():
            return b"".join(frame(h2raw.HEADERS, 4, 2 * i + 1, head) + rst(2 * i + 1) for i in range(5000))

        def made_resets():  # streams that we have to reset ourselves
            return b"".join(frame(h2raw.HEADERS, 4, 2 * i + 1, head) + window_update(2 * i + 1, 0) for i in range(5000))

        floods = {
            "rapid reset": (resets(), ENHANCE_YOUR_CALM),
            "resets we are made to send": (made_resets(), None),
            "settings": (settings() * 20000, ENHANCE_YOUR_CALM),
            "pings": (frame(h2raw.PING, 0, 0, b"12345678") * 20000, ENHANCE_YOUR_CALM),
            "empty data": (frame(h2raw.HEADERS, 4, 1, head) + frame(h2raw.DATA, 0, 1) * 20000, ENHANCE_YOUR_CALM),
            "padding only": (frame(h2raw.HEADERS, 4, 1, head) + frame(h2raw.DATA, 8, 1, b"\x05" + b"\0" * 5) * 20000,
                             ENHANCE_YOUR_CALM),
            "priority": (frame(h2raw.PRIORITY, 0, 1, b"\0\0\0\0\1") * 20000, ENHANCE_YOUR_CALM),
            "window updates": (window_update(0, 1) * 20000, ENHANCE_YOUR_CALM),
            "window overflow": (window_update(0, 2**31 - 1) * 2, FLOW_CONTROL_ERROR),
            "window of nothing": (window_update(0, 0), h2raw.PROTOCOL_ERROR),
        }
        for port in (sidecar.ports["grpc"].number, sidecar.internal, sidecar.http):
            with Peer(sidecar.ports["grpc"].number) as other:
                for name, (data, code) in floods.items():
                    before = sidecar.rss_kib()
                    with Peer(port, answers=False, window=False) as peer:
                        goaway = None
                        try:
                            for at in range(0, len(data), 20000):
                                peer.send(data[at:at + 20000])
                                if at % 100000 == 0:  # a peer that reads, too
                                    peer.sock.settimeout(0.001)
                                    try:
                                        peer.read_frame()
                                    except TimeoutError:
                                        pass
                            peer.sock.settimeout(10)
                        except OSError:
                            pass
                        except EOFError:
                            peer.is_closed = True
                        alive = frame(h2raw.PING, 0, 0, b"is alive")
                        try:
                            peer.send(alive)
                            peer.until("an end", lambda: peer.is_closed or any(f.payload == b"is alive" for f in peer.frames[-1:]))
                        except OSError:
                            peer.is_closed = True
                        goaway = peer.first(h2raw.GOAWAY)
                        # the other ports answer this head at once: DATA of a stream that is over is dropped unseen
                        self.assertTrue(peer.is_closed or port != sidecar.ports["grpc"].number or code is None, name)
                        if code is not None and goaway:  # a reset of the connection may have swallowed it
                            self.assertEqual(goaway.code, code, name)
                    self.assertEqual(other.call(HEALTH, NAMED).status, 0, name)
                    self.assertLess(sidecar.rss_kib() - before, 16 * 1024 * SLOW, name)

    @tag("debug")
    def test_random_frames_end_at_most_their_connection(self):
        sidecar = self.sidecar("app")
        rng = random.Random(4)
        head = header_block(call_headers(HEALTH))
        for i in range(200 if SLOW == 1 else 60):
            port = rng.choice([sidecar.ports["grpc"].number, sidecar.internal, sidecar.http])
            with Peer(port, answers=False) as peer:
                try:
                    peer.send(frame(h2raw.HEADERS, 4, 1, head))
                    for _ in range(30):
                        payload = rng.choice([rng.randbytes(rng.randrange(40)), message(NAMED), b"", b"\0\0\0\1", b"\0" * 8, head])
                        peer.send(frame(rng.choice(list(range(10)) + [77]), rng.choice([0, 1, 4, 5, 8, 0x20, 255]),
                                        rng.choice([0, 1, 1, 3, 5, 7]), payload))
                except OSError:
                    pass
        self.serves(sidecar.ports["grpc"].number)
        self.assertEqual(sidecar.health(), 204)

    @tag("debug")
    def test_a_deadline_passes_while_streaming(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.ports["grpc"].number) as peer:
            stream = peer.begin_call(REFLECTION, DESCRIBE, [("grpc-timeout", "150m")], ends=False)
            peer.until("status", lambda: stream.ended)
            self.assertEqual((stream.status, len(stream.messages)), (4, 1))
            peer.until("reset", lambda: stream.reset is not None)  # we have not ended our side
            self.assertEqual(stream.reset, NO_ERROR)
            peer.sync()

    @tag("debug")
    def test_cancelling_reaches_the_app_and_an_early_end_the_client(self):
        def run(peer):
            while True:
                stream = peer.until_request(30, whole=False)
                if stream.header("x-what") == "end":
                    peer.respond(stream.id, data=None, status=9, text="enough")
                elif stream.header(":path") != "/a.B/C":  # what the sidecar asks of its own accord
                    peer.respond(stream.id, data=None, status=12)
        caller, _, server = self.grpc_app(run)
        with Peer(caller.ports["grpc"].number) as peer:
            to = [("dapr-app-id", "callee")]
            stream = peer.begin_call("/a.B/C", message(b"x"), to, ends=False)
            self.wait("the call at the app", lambda: server.peers and any(s.body for p in server.peers for s in p.streams.values()))
            peer.send(rst(stream.id, CANCEL))
            self.wait("its end there", lambda: any(s.reset is not None for p in server.peers for s in p.streams.values()))
            stream = peer.begin_call("/a.B/C", message(b"x"), to + [("x-what", "end")], ends=False)
            peer.until("reset", lambda: stream.reset is not None)
            self.assertEqual((stream.status, stream.header("grpc-message"), stream.reset), (9, "enough", NO_ERROR))

    def wait(self, what, condition):
        from harness import wait_for
        wait_for(what, condition)

    def test_a_thousand_streams_nobody_reads(self):
        sidecar = self.sidecar("app")
        port, count = sidecar.ports["grpc"].number, 1000
        with Peer(port, with_settings={h2raw.INITIAL_WINDOW_SIZE: 0}, window=False) as peer:
            peer.sync()
            before = sidecar.rss_kib()
            streams = [peer.begin_call(REFLECTION, DESCRIBE * 20, ends=False) for _ in range(count)]  # 1 MiB of answers each
            peer.sync()
            held = (sidecar.rss_kib() - before) / count
            print("a stream whose client never reads holds %.0f KiB" % held, flush=True)
            self.assertLess(held, 256)
            self.serves(port)
            peer.send(settings({h2raw.INITIAL_WINDOW_SIZE: 1 << 20}), window_update(0, 1 << 30))
            first = streams[0]
            peer.until("its answers", lambda: len(first.messages) == 20)

    def test_clients_that_do_not_read_their_connection(self):
        sidecar = self.sidecar("app")
        port = sidecar.ports["grpc"].number
        before = sidecar.rss_kib()
        peers = [Peer(port, with_settings={h2raw.INITIAL_WINDOW_SIZE: 2**31 - 1}, answers=False, receive_buffer=4096)
                 for _ in range(20)]
        for peer in peers:
            peer.send(window_update(0, 2**30))
            for _ in range(5):
                peer.begin_call(REFLECTION, message(b"\x1a\x20dapr/proto/runtime/v1/dapr.proto") * 500, ends=False)
        for _ in range(20):
            self.serves(port)
        self.assertLess((sidecar.rss_kib() - before) / 20, 5 * 256 + 512)
        for peer in peers:
            peer.close()

    def test_an_app_that_does_not_read(self):
        def run(peer):
            peer.window = False
            while True:
                stream = peer.until_request(60, whole=False)
                if stream.header(":path") != "/a.B/C":
                    peer.respond(stream.id, data=None, status=12)
        caller, callee, server = self.grpc_app(run)
        count = 50
        with Peer(caller.ports["grpc"].number) as peer:
            warm = peer.begin_call("/a.B/C", message(b"x"), [("dapr-app-id", "callee")], ends=False)
            self.wait("the call at the app", lambda: server.peers and any(s.body for p in server.peers for s in p.streams.values()))
            before = caller.rss_kib(), callee.rss_kib()
            peer.send(rst(warm.id))
            # a window each, and one more that must not be taken
            streams = [peer.begin_call("/a.B/C", b"", [("dapr-app-id", "callee")], ends=False) for _ in range(count)]
            piece = message(b"x" * 16379)
            peer.sync()
            for _ in range(16):
                for stream in streams[:15]:  # the connection's window holds 4 MiB
                    peer.send_data(stream.id, piece)
            peer.sync()
            for sidecar, was in zip((caller, callee), before):
                self.assertLess((sidecar.rss_kib() - was) / 15, 300)
            self.serves(caller.ports["grpc"].number)

    def test_a_hundred_thousand_streams_leave_nothing_behind(self):
        sidecar = self.sidecar("app", flags=["--log-level", "error"])
        port, batch = sidecar.ports["grpc"].number, 500
        bodies = frame(h2raw.DATA, 1, 0, message(NAMED))[9:]

        def run(total):
            for _ in range(total // batch):
                out, first = [], peer.next_id
                for i in range(batch):
                    id_ = first + 2 * i
                    out += [frame(h2raw.HEADERS, 4, id_, head)]
                    out += [rst(id_)] if i % 250 == 0 else [frame(h2raw.DATA, 1, id_, bodies)]
                peer.next_id = first + 2 * batch
                peer.send(*out)
                last = peer.stream(first + 2 * (batch - 1))
                peer.until("answers", lambda: last.is_over and sum(s.is_over for s in peer.streams.values()) >= batch - 2)
                self.assertEqual(last.status, 0)
                peer.streams.clear()
                peer.frames.clear()
        head = header_block(call_headers(HEALTH))
        with Peer(port) as peer:
            run(10000)
            before = sidecar.rss_kib()
            run(90000)
            growth = sidecar.rss_kib() - before
            print("90,000 streams more: %+d KiB" % growth, flush=True)
            self.assertLess(growth, 512)
            self.assertLess(sidecar.descriptors(), 200)


if __name__ == "__main__":
    import unittest
    unittest.main()
