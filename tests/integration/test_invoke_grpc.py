"""InvokeService between two sidecars and apps that speak gRPC: metadata, trailers, status, deadlines."""
import base64
import struct
import threading

import h2raw
from harness import Case, reply_json, wait_for

SERVICE = "/dapr.proto.runtime.v1.Dapr/InvokeService"


def field(number, data):
    data = data if isinstance(data, bytes) else data.encode()
    n, length = len(data), b""
    while n >= 128:
        length, n = length + bytes([n & 127 | 128]), n >> 7
    return bytes([number << 3 | 2]) + length + bytes([n]) + data


def request(app_id, method, data=b"", verb=None, content_type=""):
    message = field(1, method) + field(2, field(2, data)) + (field(3, content_type) if content_type else b"")
    if verb is not None:
        message += field(4, bytes([8, verb]))
    return field(1, app_id) + field(3, message)


class InvokeService(Case):
    def client(self, sidecar):
        peer = h2raw.Peer(port=sidecar.ports["grpc"].number)
        self.addCleanup(peer.close)
        peer.until_frame(h2raw.SETTINGS)
        return peer

    def grpc_app(self, answer):
        seen, lock = [], threading.Lock()

        def run(peer):
            while True:
                stream = peer.until_request(timeout_s=600)
                if stream.header(":path").endswith("/OnInvoke"):
                    with lock:
                        seen.append(stream)
                    answer(peer, stream)
                else:
                    peer.respond(stream.id, None, status=12)
        server = h2raw.Server(run)
        self.addCleanup(server.close)
        return server, seen

    def test_metadata_goes_both_ways_also_binary(self):
        def answer(peer, stream):
            reply = field(1, field(2, b"pong")) + field(2, "text/plain")
            peer.respond(stream.id, [reply], headers=[("x-h", "v"), ("x-h", "w"), ("x-b-bin", "AAE")], trailers=[("x-t", "t"), ("x-t-bin", "AAI")])
        server, seen = self.grpc_app(answer)
        self.sidecar("callee", server.port, flags=["--app-protocol", "grpc"])
        peer = self.client(self.sidecar("caller"))
        stream = peer.call(SERVICE, request("callee", "m", b"ping", 3), [("x-one", "1"), ("x-data-bin", "AAEC"), ("outrigger-origin", "http"),
                                                                        ("dapr-caller-app-id", "forged")])
        self.assertEqual(stream.status, 0)
        self.assertEqual(stream.messages, [field(1, field(2, b"pong")) + field(2, "text/plain")])
        self.assertEqual([v for n, v in stream.headers if n == "x-h"], ["v", "w"])
        self.assertEqual(dict(stream.headers)["x-b-bin"], "AAE")
        self.assertEqual(dict(stream.trailers)["x-t"], "t")
        self.assertEqual(dict(stream.trailers)["x-t-bin"], "AAI")
        got = dict(seen[0].headers)
        self.assertEqual(got["x-one"], "1")
        self.assertEqual(got["x-data-bin"], "AAEC")
        self.assertEqual(got["dapr-caller-app-id"], "caller")
        self.assertFalse([n for n in got if n.startswith("outrigger-")])

    def test_a_status_of_the_app_comes_back_as_it_was(self):
        details = struct.pack("BB", 8, 9)
        server, _ = self.grpc_app(lambda peer, stream: peer.respond(stream.id, None, 9, "not%20now", trailers=[
            ("grpc-status-details-bin", h2_base64(details)), ("x-t", "t")]))
        self.sidecar("callee", server.port, flags=["--app-protocol", "grpc"])
        peer = self.client(self.sidecar("caller"))
        stream = peer.call(SERVICE, request("callee", "m", b"ping", 3))
        self.assertEqual(stream.status, 9)
        self.assertEqual(stream.header("grpc-message"), "not now")
        self.assertEqual(stream.header("grpc-status-details-bin"), h2_base64(details))
        self.assertEqual(stream.header("x-t"), "t")

    def test_an_http_app_cannot_speak_for_grpc(self):
        def handler(request):
            return reply_json({"ok": True}, headers=[("outrigger-grpc-status", "5"), ("outrigger-error", "7"), ("grpc-status", "9")])
        app = self.app(handler)
        callee = self.sidecar("callee", app)
        for sidecar in (self.sidecar("caller"), callee):  # remote, and its own
            stream = self.client(sidecar).call(SERVICE, request("callee", "m", b"ping", 3))
            self.assertEqual(stream.status, 0)
            self.assertEqual(stream.header("dapr-http-status"), "200")

    def test_without_a_verb_an_http_app_is_not_asked(self):
        app = self.app()
        callee = self.sidecar("callee", app)
        for sidecar in (self.sidecar("caller"), callee):
            stream = self.client(sidecar).call(SERVICE, request("callee", "m", b"ping"))
            self.assertEqual(stream.status, 13)
            self.assertIn("missing HTTP extension field", stream.header("grpc-message"))
        self.assertEqual(app.seen(), [])

    def test_a_deadline_ends_the_call_and_a_cancel_reaches_the_app(self):
        release = threading.Event()
        self.addCleanup(release.set)
        app = self.app(lambda request: release.wait(60) and None)
        self.sidecar("callee", app)
        peer = self.client(self.sidecar("caller"))
        stream = peer.call(SERVICE, request("callee", "m", b"ping", 3), [("grpc-timeout", "200m")])
        self.assertEqual(stream.status, 4)
        stream = peer.begin_call(SERVICE, h2raw.message(request("callee", "n", b"ping", 3)))
        wait_for("the call at the app", lambda: app.seen("/n"))
        peer.send(h2raw.rst(stream.id))
        sock = app.seen("/n")[0].sock
        sock.settimeout(10)
        self.assertEqual(sock.recv(1), b"")  # the sidecar has left

    def test_a_large_answer_is_refused_and_the_connection_lives(self):
        app = self.app(lambda request: reply_json("x" * (5 << 20)))
        self.sidecar("callee", app)
        peer = self.client(self.sidecar("caller"))
        stream = peer.call(SERVICE, request("callee", "m", b"ping", 3))
        self.assertNotEqual(stream.status, 0)
        self.assertIn("larger", stream.header("grpc-message"))
        peer.sync()


def h2_base64(data):
    return base64.b64encode(data).decode().rstrip("=")
