"""What the gRPC ports of a sidecar tell about themselves: reflection, health; keepalive and the end of connections."""
import threading

import h2raw
from h2raw import Peer, Server, message

from harness import Case, tag, wait_for

REFLECTION = "/grpc.reflection.%s.ServerReflection/ServerReflectionInfo"
SERVICES = {"dapr.proto.runtime.v1.Dapr", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"}
DAPR_FILE = b"dapr/proto/runtime/v1/dapr.proto"


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def text(number, value):
    value = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """(number, value) of a message; bytes stay bytes."""
    at, found = 0, []

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


def all_of(data, number):
    return [value for n, value in fields(data) if n == number]


class GrpcServer(Case):
    def ask(self, peer, stream, *request):
        before = len(stream.messages)
        peer.send_data(stream.id, b"".join(message(r) for r in request))
        peer.until("answers", lambda: len(stream.messages) >= before + len(request) or stream.is_over)
        return stream.messages[before:]

    @tag("debug")
    def test_clients_list_and_describe_services(self):
        sidecar = self.sidecar("app")
        for version in ("v1", "v1alpha"):
            with Peer(sidecar.ports["grpc"].number) as peer:
                stream = peer.begin_call(REFLECTION % version, ends=False)
                listed, = self.ask(peer, stream, text(7, "*"))
                names = {all_of(s, 1)[0].decode() for s in all_of(all_of(listed, 6)[0], 1)}
                self.assertEqual(names, SERVICES)
                self.assertEqual(all_of(listed, 2), [text(7, "*")])  # the question
                # what grpcurl asks to describe a service: the file and all that it imports, each once
                answer, = self.ask(peer, stream, text(4, "dapr.proto.runtime.v1.Dapr"))
                files = {all_of(f, 1)[0]: f for f in all_of(all_of(answer, 4)[0], 1)}
                self.assertEqual(next(iter(files)), DAPR_FILE)
                for data in files.values():
                    for imported in all_of(data, 3):
                        self.assertIn(imported, files)
                dapr = files[DAPR_FILE]
                methods = {all_of(m, 1)[0] for m in all_of(all_of(dapr, 6)[0], 2)}
                self.assertLessEqual({b"InvokeService", b"GetState", b"SubscribeTopicEventsAlpha1"}, methods)
                for symbol in ("dapr.proto.runtime.v1.Dapr.GetState", "dapr.proto.runtime.v1.GetStateRequest",
                               "dapr.proto.common.v1.StateOptions.StateConcurrency",
                               "dapr.proto.common.v1.StateOptions.CONCURRENCY_FIRST_WRITE", "grpc.health.v1.Health",
                               "google.protobuf.Any", "dapr.proto.runtime.v1.GetStateRequest.store_name"):
                    answer, = self.ask(peer, stream, text(4, symbol))
                    files = all_of(all_of(answer, 4)[0], 1)
                    self.assertGreaterEqual(len(files), 1, symbol)
                answer, = self.ask(peer, stream, text(3, DAPR_FILE))
                self.assertEqual([all_of(f, 1)[0] for f in all_of(all_of(answer, 4)[0], 1)], [DAPR_FILE])
                answers = self.ask(peer, stream, text(4, "no.Such"), text(3, "no.proto"), text(6, "no.Such"), text(4, ""),
                                   text(4, "dapr.proto.runtime.v1."), text(5, text(1, "google.protobuf.Any")))
                for answer in answers:
                    error = all_of(answer, 7)[0]
                    self.assertEqual(all_of(error, 1), [5])
                answer, = self.ask(peer, stream, text(6, "google.protobuf.Any"))
                self.assertEqual(all_of(all_of(answer, 5)[0], 1), [b"google.protobuf.Any"])
                peer.send_data(stream.id, b"", True)
                self.assertEqual(peer.until_over(stream).status, 0)
                stream = peer.begin_call(REFLECTION % version, message(text(1, "host")), ends=False)
                self.assertEqual(peer.until_over(stream).status, 3)

    @tag("debug")
    def test_a_client_that_reads_no_reflection_costs_a_window(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.ports["grpc"].number, window=False) as peer:
            stream = peer.begin_call(REFLECTION % "v1", ends=False)
            before = sidecar.rss_kib()
            question = message(text(4, "dapr.proto.runtime.v1.Dapr")) + message(text(3, DAPR_FILE))
            peer.send_data(stream.id, question * 2000)  # some 80 MiB of answers
            peer.sync()
            self.assertLess(sidecar.rss_kib() - before, 8 * 1024)

    @tag("debug")
    def test_health_of_the_api_by_its_services(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.ports["grpc"].number) as peer:
            answer = peer.call("/grpc.health.v1.Health/Check", text(1, "dapr.proto.runtime.v1.Dapr"))
            self.assertEqual((answer.status, answer.messages), (0, [b"\x08\x01"]))
            self.assertEqual(peer.call("/grpc.health.v1.Health/Check", text(1, "no.Such")).status, 5)
            # without a name it is what it is to daprd: a call of an unknown method; with an app's, the app's
            answer = peer.call("/grpc.health.v1.Health/Check")
            self.assertEqual(answer.status, 2)
            self.assertIn("missing dapr-callee-app-id", answer.header("grpc-message"))
            answer = peer.call("/grpc.health.v1.Health/Check", text(1, "grpc.health.v1.Health"), [("dapr-app-id", "other")])
            self.assertNotEqual(answer.status, 0)
            unknown = peer.begin_call("/grpc.health.v1.Health/Watch", message(text(1, "no.Such")))
            watch = peer.begin_call("/grpc.health.v1.Health/Watch", message(text(1, "dapr.proto.runtime.v1.Dapr")))
            peer.until("statuses", lambda: watch.messages and unknown.messages)
            self.assertEqual((watch.messages, unknown.messages), ([b"\x08\x01"], [b"\x08\x03"]))
            peer.send(h2raw.rst(unknown.id))
            sidecar.may_end = True
            sidecar.process.terminate()
            peer.until_over(watch)
            self.assertEqual((watch.messages, watch.status), ([b"\x08\x01", b"\x08\x02"], 14))

    @tag("debug")
    def test_the_token_is_asked_for_there_too(self):
        sidecar = self.sidecar("app", env={"DAPR_API_TOKEN": "secret"})
        sidecar.env.pop("DAPR_API_TOKEN")
        with Peer(sidecar.ports["grpc"].number) as peer:
            for path, body in ((REFLECTION % "v1", text(7, "")), (REFLECTION % "v1alpha", text(7, "")),
                               ("/grpc.health.v1.Health/Check", text(1, "dapr.proto.runtime.v1.Dapr"))):
                self.assertEqual(peer.call(path, body).status, 16)
                self.assertEqual(peer.call(path, body, [("dapr-api-token", "wrong")]).status, 16)
                self.assertEqual(peer.call(path, body, [("dapr-api-token", "secret")]).status, 0)

    @tag("debug")
    def test_the_internal_port_takes_them_for_proxied_calls(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.internal) as peer:
            for path in (REFLECTION % "v1", "/grpc.health.v1.Health/Check"):
                self.assertEqual(peer.call(path, text(1, "x")).status, 2)

    @tag("debug")
    def test_too_many_pings_on_the_internal_port(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.internal) as peer:
            for i in range(4):
                peer.send(h2raw.frame(h2raw.PING, 0, 0, b"0000000%d" % i))
                peer.until("answer", lambda: any(f.type == h2raw.PING and f.payload == b"0000000%d" % i for f in peer.frames))
            goaway = peer.until_closed()
            self.assertEqual((goaway.last_stream, goaway.code, goaway.payload[8:]), (0, 11, b"too_many_pings"))
        with Peer(sidecar.ports["grpc"].number) as peer:  # apps may ping their own sidecar
            for _ in range(20):
                peer.sync()

    def grpc_app(self, run, with_settings=()):
        server = Server(run, with_settings)
        self.addCleanup(server.close)
        self.sidecar("callee", server.port, flags=["--app-protocol", "grpc"])
        return self.sidecar("caller"), server

    @tag("debug")
    def test_14_an_app_that_takes_one_stream_at_a_time_gets_more_connections(self):
        gate = threading.Event()

        def run(peer):
            while True:
                stream = peer.until_request(60)
                if stream.header(":path") != "/a.B/C":  # what the sidecar asks of its own accord
                    peer.respond(stream.id, data=None, status=12)
                    continue
                with lock:
                    at_work.append(peer)
                gate.wait(60)
                peer.respond(stream.id, [b"done"])
        at_work, lock = [], threading.Lock()
        caller, _ = self.grpc_app(run, {h2raw.MAX_CONCURRENT_STREAMS: 1})
        with Peer(caller.ports["grpc"].number) as peer:
            streams = [peer.begin_call("/a.B/C", message(b"x"), [("dapr-app-id", "callee")]) for _ in range(6)]
            wait_for("six calls at the app", lambda: len(at_work) == 6)
            self.assertEqual(len(set(map(id, at_work))), 6)
            gate.set()
            for stream in streams:
                self.assertEqual(peer.until_over(stream).status, 0)

    @tag("debug")
    def test_16_an_app_that_ends_its_connections_in_two_steps_loses_no_call(self):
        def run(peer):
            calls = last = 0
            while True:
                stream = peer.until_request(60)
                if stream.header(":path") != "/a.B/C":
                    peer.respond(stream.id, data=None, status=12)
                    continue
                calls, last = calls + 1, stream.id
                if calls == 3:  # as at the end of a connection's age: the calls in hand are answered
                    peer.send(h2raw.goaway(2**31 - 1), h2raw.frame(h2raw.PING, 0, 0, b"goodbye!"))
                    peer.until("the answer", lambda: any(f.payload == b"goodbye!" for f in peer.frames))
                    peer.send(h2raw.goaway(max(s.id for s in peer.streams.values())))
                peer.respond(last, [b"done"])
        caller, server = self.grpc_app(run)
        with Peer(caller.ports["grpc"].number) as peer:
            for _ in range(10):
                streams = [peer.begin_call("/a.B/C", message(b"x"), [("dapr-app-id", "callee")]) for _ in range(7)]
                for stream in streams:
                    self.assertEqual((peer.until_over(stream).status, stream.messages), (0, [b"done"]))
        self.assertGreater(len(server.peers), 2)

    @tag("debug")
    def test_shutdown_says_goodbye_twice_and_loses_no_call(self):
        sidecar = self.sidecar("app")
        with Peer(sidecar.ports["grpc"].number, answers=False) as peer:
            peer.send(h2raw.frame(h2raw.SETTINGS, h2raw.ACK))
            stream = peer.begin_call(REFLECTION % "v1", message(text(7, "")), ends=False)
            peer.until("answer", lambda: stream.messages)
            sidecar.may_end = True
            sidecar.process.terminate()
            first = peer.until_frame(h2raw.GOAWAY)
            self.assertEqual((first.last_stream, first.code), (2**31 - 1, 0))
            ping = peer.until("ping", lambda: next((f for f in peer.frames if f.type == h2raw.PING), None))
            self.assertGreater(peer.frames.index(ping), peer.frames.index(first))
            late = peer.begin_call(REFLECTION % "v1", message(text(7, "")))  # was on its way
            peer.send(h2raw.frame(h2raw.PING, h2raw.ACK, 0, ping.payload))
            self.assertEqual(peer.until_over(late).status, 0)
            peer.send_data(stream.id, b"", True)
            self.assertEqual(peer.until_over(stream).status, 0)
            last = peer.until_closed()
            self.assertEqual((last.last_stream, last.code), (late.id, 0))
        self.assertEqual(sidecar.wait_exit(), 0)
