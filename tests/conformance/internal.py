"""Plays the daprd side of the internal port from recorded calls (../shared/golden/internal), byte by byte.

  internal.py [-k REGEX] [-v]     ends with "N passed, N failed, N skipped"

For a line of caller.jsonl our sidecar gets the client's request and the recorded peer answers it; for one of
callee.jsonl the recorded peer calls our sidecar and the recorded app answers. What is not asked of us stands in
OUT with the reason; where we do better than what was recorded, in BETTER.
Environment: OUTRIGGER_BIN, the directory of the binaries (build/bin)."""
import argparse
import collections
import contextlib
import json
import os
import re
import select
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
RECORDED = os.path.join(os.path.dirname(TOP), "shared", "golden", "internal")
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
sys.path.insert(0, HERE)

import h2raw  # noqa: E402
import harness  # noqa: E402
import internal_wire as wire  # noqa: E402

INTERNALS = "/dapr.proto.internals.v1.ServiceInvocation/"

# Lines that are left out, and why.
OUT = {
    **{"http2.callee." + what: "takes half a minute and more; tests/unit/http/test_h2_guard.c holds it on a virtual clock"
       for what in ("idle", "pings.5", "pings.7.5", "pings.9")},
    "callee.app.gzip": "an app is not asked for gzip in the caller's name, so nothing is unpacked for it",
}

# Where we do better; what is expected instead is with the check that looks for the word.
BETTER = {
    "caller.answer.seq.gap": "broken: a wrong sequence number shows at the client as a broken body",
    "caller.answer.seq.start1": "broken: the same",
    "caller.answer.seq.repeat": "broken: the same",
    "caller.answer.response.twice": "broken: a second head shows at the client as a broken body",
    "caller.answer.cut": "broken: a failing status behind the first message shows at the client as a broken body",
    "caller.headers.dapr": "own: names by which only sidecars say who calls are dropped",
    "caller.headers.api-token": "own: a token does not cross a hop",
    "caller.proxy.token": "own: the same",
    "callee.ok.post.length-wrong": "cut: what is known to be short may not reach the app at all",
    "callee.seq.start1": "cut: the same",
    "callee.seq.gap": "cut: the same",
    "callee.seq.repeat": "cut: the same",
    "callee.seq.late": "cut: the same",
    "callee.request.twice": "cut: the same",
    "callee.app.close": "app: an idempotent request that a kept connection swallowed is sent once more",
    "callee.app.cut": "status 13: an answer that breaks off is not told as a whole one",
    "callee.sse.accept-lower": "served: header names have no case",
    "callee.unary.sse": "served: it ends the reference's process",
    "callee.verb.99": "status 13: no such verb; the reference sends the number to the app",
    "callee.verb.trace": "app: TRACE has no body (RFC 9110 section 9.3.8)",
    "callee.headers": "own: dapr-api-token does not cross a hop",
    "callee.headers.token": "own: dapr-api-token does not cross a hop",
    **{"callee.headers.forged.%d" % i: "own: names by which only sidecars say who calls are dropped" for i in range(4)},
    "callee.method.nul": "status 13: text with a NUL is no valid message here",
    "callee.path.echo.http-app": "status 14: an app that speaks HTTP/1 is not sent an HTTP/2 preface",
}


class Place:
    """What harness.Sidecar wants of a test."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="outrigger-internal-")
        self.run_dir = os.path.join(self.dir, "run")

    def done(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def lines(name):
    with open(os.path.join(RECORDED, name)) as file:
        return [json.loads(line) for line in file if line.strip()]


def same(what, got, expected):
    assert got == expected, "%s: %r, not %r" % (what, got, expected)


def fits(what, got, expected):
    assert re.fullmatch(wire.pattern(expected), got or "", re.S), "%s: %r, not %r" % (what, got, expected)


def fits_map(what, got, expected):
    same(what + ", names", sorted(got), sorted(expected))
    for name, values in expected.items():
        same("%s, number of %s" % (what, name), len(got[name].get("values", [])), len(values.get("values", [])))
        for one, other in zip(got[name].get("values", []), values.get("values", [])):
            fits("%s %s" % (what, name), one, other)


def text_of(body):
    """A recorded body, also a shortened one."""
    if isinstance(body, dict):
        return body["repeat"].encode("latin-1") * body["bytes"]
    short = re.fullmatch(r"(.)\1*\.\.\. \((\d+) bytes\)", body)
    return short[1].encode() * int(short[2]) if short else body.encode("latin-1")


# ---------------------------------------------------------------- our sidecar calls the recorded peer
class RecordedPeer:
    """Answers call after call as told; keeps what came. One list for all connections."""

    def __init__(self):
        self.calls, self.answers, self.lock = [], collections.deque(), threading.Lock()
        self.server = h2raw.Server(self.run)

    def run(self, peer):
        while True:
            stream = peer.until_request(timeout_s=600)
            with self.lock:
                self.calls.append((peer, stream))
                answer = self.answers.popleft() if self.answers else None
            if answer:
                self.give(peer, stream, answer)

    def give(self, peer, stream, answer):
        is_stream = stream.header(":path") != INTERNALS + "CallLocal"
        head = [(":status", "200"), ("content-type", "application/grpc"), *answer["initial"]]
        if not answer["messages"] and not answer["initial"]:
            peer.send_headers(stream.id, head + [(n, v) for n, v in answer["trailers"]], True)
            return
        peer.send_headers(stream.id, head)
        for one in answer["messages"]:
            peer.send_data(stream.id, h2raw.message(wire.message(one, "ResponseStream" if is_stream else "Response")))
            time.sleep(answer.get("gap_s", 0))  # as it was recorded
        peer.send_headers(stream.id, [(n, v) for n, v in answer["trailers"]], True)

    def take(self):
        with self.lock:
            calls, self.calls = self.calls, []
            self.answers.clear()
        return calls


class CallerSide:
    name = "caller"

    def __init__(self, place):
        self.peer = RecordedPeer()
        at = json.dumps("127.0.0.1:%d" % self.peer.server.port)
        config = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n"
                  "    component: static\n    version: v1\n    configuration: {callee: %s}\n" % at)
        self.sidecar = harness.Sidecar(place, "caller", config=config).start()

    def close(self):
        self.peer.server.close()
        return self.sidecar.finish()

    def run(self, line):
        self.peer.take()
        self.peer.answers.extend(line["answered"])
        saw = self.over_http(line) if "http" in line else self.over_grpc(line)
        calls = self.peer.take()
        expected = [line["grpc"]] if line.get("grpc") else []
        expected += line.get("grpc_more") or []
        if line["id"] == "headers.latin1":
            expected = []
        same("number of calls", len(calls), len(expected))
        for (_, stream), one in zip(calls, expected):
            self.compare_call(line, stream, one)
        peers = [peer for peer, _ in calls]
        if len(calls) > 1 and calls[1][1].header(":path") == calls[0][1].header(":path"):
            same("connections", len(set(map(id, peers))), len(peers))
            for peer in peers[:-1]:
                harness.wait_for("GOAWAY on the connection before", lambda: any(f.type == h2raw.GOAWAY and f.code == 0 for f in peer.frames))
        saw(line["client_saw"])

    # ---- what the client does
    def over_http(self, line):
        http = line["http"]
        with harness.Client(self.sidecar.http) as client:
            body = http.get("body")
            if "chunked" in http:
                body = self.pieces(http)
            elif body is not None:
                body = text_of(body)
            client.send_request(http["method"], http["path"], [tuple(h) for h in http["headers"]], body)
            status, headers, _ = client.read_head()
            got, is_broken = b"", False
            try:
                for piece in client.body_pieces(http["method"], status, headers, []):
                    got += piece
            except (EOFError, OSError, ValueError):
                is_broken = True
        return lambda expected: self.compare_answer(line, status, headers, got, is_broken, expected)

    def pieces(self, http):
        for piece in http["chunked"]:
            yield text_of(piece)
            time.sleep(http.get("gap_s", 0))  # as it was recorded

    def over_grpc(self, line):
        client = line["client"]
        own = "user-agent" in [n for n, _ in client["metadata"]]
        extra = [] if own else [("user-agent", "grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)")]
        extra += [("grpc-accept-encoding", "identity, deflate, gzip")]
        for name, value in client["metadata"]:
            if value.startswith("bytes:"):
                value = wire.base64.b64encode(bytes.fromhex(value[6:])).decode().rstrip("=")
            extra.append((name, value))
        if "timeout_s" in client or client["path"].endswith("/InvokeService"):
            extra.append(("grpc-timeout", "%dS" % client.get("timeout_s", 30)))
        if "messages" in client:
            messages = [bytes.fromhex(m["repeat"]) * m["bytes"] if isinstance(m, dict) else bytes.fromhex(m) for m in client["messages"]]
        elif "hex" in client["message"]:
            messages = [bytes.fromhex(client["message"]["hex"])]
        else:
            any_ = {"value": wire.base64.b64encode(b"v" * 5120).decode()}
            messages = [wire.encode("Invoke", {"id": "callee", "message": {"method": "say", "data": any_,
                                                                          "http_extension": {"verb": "POST"}}})]
        with h2raw.Peer(port=self.sidecar.ports["grpc"].number) as peer:
            body = b"".join(map(h2raw.message, messages))
            stream = peer.until_over(peer.begin_call(client["path"], body, extra, authority="127.0.0.1:%d" % peer.sock.getpeername()[1]))
        return lambda expected: self.compare_status(line, stream, expected)

    # ---- what came to the peer
    def compare_call(self, line, stream, expected):
        path = expected["path"]
        same("path", stream.header(":path"), path)
        self.compare_metadata(line, stream, expected)
        if not path.startswith(INTERNALS):
            same("messages", stream.messages, [wire.message(m, None) for m in expected["messages"]])
            return
        is_stream = path.endswith("Stream")
        type_ = "RequestStream" if is_stream else "Request"
        got = [wire.decode(type_, m) for m in stream.messages]
        wanted = [wire.decode(type_, wire.message(m, type_)) for m in expected["messages"]]
        if is_stream:
            got, wanted = wire.join(got, "request"), wire.join(wanted, "request")
            same("body", got[1], wanted[1])
            got, wanted = got[0], wanted[0]
        else:
            got, wanted = got[0], wanted[0]
        self.compare_head(line, got, wanted)

    def compare_head(self, line, got, wanted):
        recorded = dict(wanted.get("metadata", {}))
        for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host"):
            values = recorded[name]["values"]
            if "grpc_more" in line:
                values = values[:1]  # added once a call, not once a try
            recorded[name] = {"values": [re.sub(r"192\.0\.2\.10|caller-host", "<ip>", v) for v in values]}
        if ":authority" in recorded:
            recorded[":authority"] = {"values": ["127.0.0.1:<port:caller.grpc>"]}
        if "caller." + line["id"] in BETTER:
            for name in [n for n in recorded if n[0].isupper() and re.match(r"(?i)dapr-(call|api)|destination", n)]:
                del recorded[name]
        metadata = got.get("metadata", {})
        fits_map("metadata", metadata, recorded)
        same("request", {**got, "metadata": 0}, {**wanted, "metadata": 0})

    def compare_metadata(self, line, stream, expected):
        got = collections.defaultdict(set)
        for name, value in stream.headers:
            got[name].add(value)
        wanted = collections.defaultdict(set)
        for name, value in expected["metadata"]:
            wanted[name].add(value)
        if "caller." + line["id"] in BETTER:
            wanted.pop("dapr-api-token", None)
        for name in ("user-agent", ":authority", "date"):
            wanted.pop(name, None)
            got.pop(name, None)
        is_proxied = not expected["path"].startswith(INTERNALS)
        if is_proxied:  # frames pass as they are, and so does what they are said to be
            for name in ("content-type", "grpc-accept-encoding"):
                wanted.pop(name, None)
                got.pop(name, None)
        same("names of the call's metadata", sorted(got), sorted(wanted))
        for name, values in wanted.items():
            if name == "grpc-timeout":
                assert re.fullmatch(r"\d{1,8}[HMSmun]", next(iter(got[name]))), got[name]
            else:
                same("metadata " + name, got[name], {wire.trace_bin(v) for v in values})

    # ---- what the client saw
    def compare_answer(self, line, status, headers, body, is_broken, expected):
        same("status", status, expected["status"])
        same("broken", is_broken, BETTER.get("caller." + line["id"], "").startswith("broken"))
        ignored = ("date", "transfer-encoding", "content-length", "connection", "outrigger-reason")
        dates = [v for n, v in headers if n.lower() == "date"]
        got = sorted((n.lower(), v) for n, v in headers if n.lower() not in ignored)
        wanted = sorted((n.lower(), v) for n, v in expected["headers"] if n.lower() not in ignored)
        same("headers", got, wanted)
        same("one date", len(dates), 1)
        wanted = text_of(expected["body"])
        if body[:2] == b'{"' and b"errorCode" in body:
            got = json.loads(body)
            same("error", got, json.loads(wanted))
            return
        if is_broken:
            assert wanted.startswith(body), body
            return
        same("body", body, wanted)

    def compare_status(self, line, stream, expected):
        codes = dict((v, k) for k, v in enumerate(
            "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
            "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
            "UNAUTHENTICATED".split()))
        same("status", stream.status, codes[expected["status"]])
        if expected["status"] != "OK":
            same("message", wire_text(stream.header("grpc-message") or ""), expected["message"])
        if "messages" in expected:
            wanted = [bytes.fromhex(m["repeat"]) * m["bytes"] if isinstance(m, dict) else bytes.fromhex(m) for m in expected["messages"]]
            same("messages", stream.messages, wanted)
        elif expected["status"] == "OK":
            got = [wire.decode("InvokeResponse", m) for m in stream.messages]
            wanted = expected["message"]
            if "hex" in wanted:
                wanted = wire.decode("InvokeResponse", bytes.fromhex(wanted["hex"]))
            same("response", got, [wanted])
        head = dict(stream.headers)
        trailers = dict(stream.trailers)
        both = {**head, **trailers}
        for name, value in expected["initial"] + expected["trailers"]:
            if value.startswith("bytes:"):
                value = wire.base64.b64encode(bytes.fromhex(value[6:])).decode().rstrip("=")
            if name == "grpc-status-details-bin":
                same("length of details", len(both.get(name, "")), len(value))
            else:
                same("metadata " + name, both.get(name), value)


# ---------------------------------------------------------------- the recorded peer calls our sidecar
class RecordedApp:
    """Speaks HTTP/1.1 as the recording says, broken answers included."""

    OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"

    def __init__(self):
        self.answers, self.requests, self.lock, self.busy, self.sockets = {}, [], threading.Lock(), 0, []
        self.hold = harness.Port()
        self.port, self.listener = self.hold.number, None

    def up(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def down(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in list(self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        sock.settimeout(harness.WAIT_S)
        reader = harness.Reader(sock)
        try:
            while self.one(sock, reader):
                pass
        except (OSError, EOFError, ValueError):
            pass
        self.sockets.remove(sock)
        sock.close()

    def one(self, sock, reader):
        line = reader.line()
        with self.lock:
            self.busy += 1
        try:
            return self.answer(sock, reader, line)
        finally:
            with self.lock:
                self.busy -= 1

    def answer(self, sock, reader, line):
        seen = {"line": line, "headers": reader.headers(), "body": b"", "body_cut": False}
        target = line.split(" ")[1]
        if target.startswith("/dapr/"):
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        steps = list(self.answers.get(target.split("?")[0], [self.OK]))
        with self.lock:
            self.requests.append(seen)
        if steps[0] == "early":
            steps.pop(0)
        else:
            self.read_body(reader, seen)
        for step in steps:
            if step is None:
                return False
            if isinstance(step, str):
                sock.sendall(self.bytes_of(step))
            else:
                time.sleep(step)  # as it was recorded
        return True

    def bytes_of(self, step):
        short = re.match(r"(.*)\.\.\. \((\d+) bytes\)$", step, re.S)
        text = step.encode("latin-1")
        if short:
            text = short[1].encode("latin-1")
            text += text[-1:] * (int(short[2]) - len(text))
        return text

    def read_body(self, reader, seen):
        try:
            if (harness.header(seen["headers"], "transfer-encoding") or "").lower() == "chunked":
                for piece in reader.chunks([]):
                    seen["body"] += piece
            else:
                for piece in reader.pieces(int(harness.header(seen["headers"], "content-length") or 0)):
                    seen["body"] += piece
        except (OSError, EOFError, ValueError):
            seen["body_cut"] = True
            raise

    def settle(self):
        """Until every request has been read to its end, however that came, and none is on its way: what the
        sidecar broke off may still lie in a socket that no thread has looked at. Seen twice, as a thread may
        have taken the bytes and not yet said so."""
        quiet = []

        def rests():
            waiting = [s for s in [self.listener, *self.sockets] if s and s.fileno() >= 0]
            if self.busy or select.select(waiting, [], [], 0)[0]:
                quiet.clear()
            else:
                quiet.append(True)
            return len(quiet) >= 2
        harness.wait_for("rest at the app", rests)

    def take(self):
        with self.lock:
            seen, self.requests = self.requests, []
        return seen


class CalleeSide:
    name = "callee"

    def __init__(self, place):
        self.place, self.sidecars = place, {}
        self.app, self.grpc_app = RecordedApp(), None
        self.app.up()

    def close(self):
        troubles = [s.finish() for s in self.sidecars.values()]
        return next((t for t in troubles if t), None)

    def sidecar(self, line):
        kind = line["app"]
        if line["id"].startswith("proxy."):
            kind = "callee-grpc"
        if line["id"] in ("app.not-yet", "app.down"):
            kind = line["id"]
        if kind not in self.sidecars:
            self.sidecars[kind] = self.start(kind)
        return self.sidecars[kind]

    def start(self, kind):
        if kind in ("grpc", "callee-grpc"):
            self.grpc_app = self.grpc_app or RecordedGrpcApp()
            return harness.Sidecar(self.place, "callee" if kind == "grpc" else kind, self.grpc_app.server.port, flags=["--app-protocol", "grpc"]).start()
        if kind == "app.not-yet":
            return harness.Sidecar(self.place, "callee", RecordedApp()).start(ready=False)
        if kind == "app.down":
            app = RecordedApp()
            app.up()
            sidecar = harness.Sidecar(self.place, "callee", app).start()
            app.down()
            return sidecar
        return harness.Sidecar(self.place, "callee", self.app if kind == "http" else None).start()

    def run(self, line):
        if line["id"] == "app.down.unary":
            line["app"] = "app.down"
        sidecar = self.sidecar(line)
        self.app.answers = {k: v for k, v in line.get("app_answers", {}).items()} if line["app"] != "grpc" else {}
        self.app.take()
        if line["app"] == "grpc":
            self.grpc_app.take(line.get("app_answers", {}))
        harness.wait_for("the internal port", lambda: socket.create_connection(("127.0.0.1", sidecar.internal)).close() or True)
        with h2raw.Peer(port=sidecar.internal) as peer:
            peer.until_frame(h2raw.SETTINGS)
            stream = self.call(peer, line["grpc"])
            peer.until_over(stream)
            self.compare_answer(line, stream)
        self.app.settle()
        seen = self.grpc_app.calls() if line["app"] == "grpc" else self.app.take()
        self.compare_app(line, seen)

    def call(self, peer, call):
        path = call["path"]
        type_ = "RequestStream" if path.endswith("CallLocalStream") else "Request"
        own = [name for name, _ in call["metadata"]]
        extra = [("grpc-accept-encoding", "gzip")] + [(n, v) for n, v in call["metadata"] if n != "te"]
        stream = peer.begin(h2raw.call_headers(path, extra=[e for e in extra if e[0] not in own or e in extra]))
        for i, one in enumerate(call["messages"]):
            if i:
                time.sleep(call.get("gap_s", 0))  # as it was recorded
            peer.send_data(stream.id, h2raw.message(wire.message(one, type_)))
        if call.get("half_closed", True):
            peer.send_data(stream.id, b"", True)
        return stream

    # ---- what the peer got
    def compare_answer(self, line, stream):
        expected = line["answered"]
        better = BETTER.get("callee." + line["id"], "")
        got = dict(pair for head in stream.heads for pair in head)
        if better.startswith("served"):
            same("status", stream.status, 0)
            return
        if better.startswith("status "):
            same("status", stream.status, int(better.split()[1].rstrip(":")))
            return
        wanted = dict((n, v) for n, v in expected["initial"] + expected["trailers"])
        same(":status", got[":status"], "200")
        same("content-type", got["content-type"], "application/grpc")
        same("grpc-status", got.get("grpc-status"), wanted["grpc-status"])
        self.compare_message(line, wire_text(got.get("grpc-message", "")), wanted.get("grpc-message", ""))
        for name, value in wanted.items():
            if not name.startswith((":", "grpc-message", "grpc-status", "content-type", "grpc-trace-bin")):
                same("metadata " + name, got.get(name), value)
        path = line["grpc"]["path"]
        assert not path.startswith(INTERNALS) or ("grpc-trace-bin" in got) == ("grpc-trace-bin" in wanted), got
        if not path.startswith(INTERNALS):
            same("messages", stream.messages, [wire.message(m, None) for m in expected["messages"]])
            return
        is_stream = path.endswith("CallLocalStream")
        type_ = "ResponseStream" if is_stream else "Response"
        messages = [wire.decode(type_, m) for m in stream.messages]
        recorded = [wire.decode(type_, wire.message(m, type_)) for m in expected["messages"]]
        if not recorded:
            same("messages", messages, [])
            return
        if is_stream:
            for head, one in zip(messages[1:], recorded[1:]):
                same("later response", head.get("response"), one.get("response"))
            messages, recorded = wire.join(messages, "response"), wire.join(recorded, "response")
            same("body", messages[1], recorded[1])
            messages, recorded = messages[0], recorded[0]
        else:
            messages, recorded = messages[0], recorded[0]
        for name in ("headers", "trailers"):
            fits_map(name, messages.pop(name, {}), self.comparable(recorded.pop(name, {})))
        same("response", messages, recorded)

    def comparable(self, map_):
        return {name: {"values": ["<date>"]} if name == "Date" else values for name, values in map_.items()}

    def compare_message(self, line, got, wanted):
        """What Go's HTTP client says of a request stands for what ours says."""
        go = re.match(r'(error invoking app channel: )(?:(?:Get|Post|parse) ".*?": )?(.*)', wanted, re.S)
        if not go:
            same("grpc-message", got, wanted)
            return
        assert got.startswith(go[1]), got
        if re.match(r"(rpc error|invalid sequence|request metadata|no response|context deadline)", go[2]):
            same("grpc-message", got, go[1] + go[2])

    # ---- what the app got
    def compare_app(self, line, seen):
        better = BETTER.get("callee." + line["id"], "")
        expected = line.get("app_saw") or []
        if better.startswith(("status", "app")):
            return
        if better.startswith("cut") and not seen:
            return
        same("requests to the app", len(seen), len(expected))
        for got, one in zip(seen, expected):
            if "path" in one:
                self.compare_grpc(got, one)
                continue
            same("request line", got["line"], one["line"])
            self.compare_headers(line, got["headers"], one["headers"])
            if one["body"] == "not read":
                continue
            body = one["body"]
            wanted = (b"x" * int(body.split()[0])) if re.fullmatch(r"\d+ bytes", body) else body.encode("latin-1")
            if better.startswith("cut"):
                assert wanted.startswith(got["body"]) and got["body_cut"], got
                continue
            same("body", got["body"], wanted)
            same("body cut", got["body_cut"], one.get("body_cut", False))

    def compare_headers(self, line, got, wanted):
        ignored = ["host", "connection"]
        if ["Accept-Encoding", "gzip"] in wanted and "gzip.asked" not in line["id"]:
            ignored.append("accept-encoding")  # Go asks for it by itself
        if any(v.startswith("Go-http-client") for n, v in wanted if n == "User-Agent"):
            ignored.append("user-agent")
        if BETTER.get("callee." + line["id"], "").startswith("own"):
            wanted = [(n, v) for n, v in wanted if v != "forged" and n != "Dapr-Api-Token"]
        got = sorted((n.lower(), v) for n, v in got if n.lower() not in ignored)
        wanted = sorted((n.lower(), v) for n, v in wanted if n.lower() not in ignored)
        fits("headers", repr(got), repr(wanted))

    def compare_grpc(self, got, wanted):
        same("path", got.header(":path"), wanted["path"])
        same("messages of the app", [m.hex() for m in got.messages], wanted["messages"])
        # Hop-by-hop names and the like end at the hop; a name's case is not looked at.
        ends_here = (":authority", "user-agent", "grpc-accept-encoding", "content-type", "dapr-connection", "dapr-content-length",
                     "dapr-host", "accept")
        pairs = {(n, wire.trace_bin(v)) for n, v in wanted["metadata"] if n not in ends_here}
        missing = pairs - set(got.headers)
        assert not missing, "the app did not get %r of %r" % (missing, got.headers)


class RecordedGrpcApp:
    """Answers by path as told."""

    def __init__(self):
        self.answers, self.seen, self.lock = {}, [], threading.Lock()
        self.server = h2raw.Server(self.run)

    def run(self, peer):
        while True:
            stream = peer.until_request(timeout_s=600)
            path = stream.header(":path")
            with self.lock:
                answer = self.answers.get(path)
            if not answer:
                if "/golden." in path:
                    answer = {"initial": [("x-init", "i")], "messages": ["0a026869"], "trailers": [("x-t", "t"), ("grpc-status", "0")]}
                else:
                    peer.respond(stream.id, None, status=12)
                    continue
            with self.lock:
                self.seen.append(stream)
            head = [(":status", "200"), ("content-type", "application/grpc"), *answer.get("initial", [])]
            trailers = [tuple(t) for t in answer["trailers"]]
            if not answer.get("messages"):
                peer.send_headers(stream.id, head + trailers, True)
                continue
            peer.send_headers(stream.id, [tuple(h) for h in head])
            for one in answer["messages"]:
                peer.send_data(stream.id, h2raw.message(bytes.fromhex(one)))
            peer.send_headers(stream.id, trailers, True)

    def take(self, answers):
        with self.lock:
            self.answers, self.seen = dict(answers), []

    def calls(self):
        with self.lock:
            return list(self.seen)


def wire_text(text):
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text)


# ---------------------------------------------------------------- connections
class ConnectionSide:
    """What a connection says besides calls."""

    name = "http2"

    def __init__(self, place):
        self.caller = CallerSide(place)
        self.callee = harness.Sidecar(place, "callee").start()

    def close(self):
        return self.caller.close() or self.callee.finish()

    def run(self, line):
        getattr(self, re.sub("[.-]", "_", line["id"]))()

    def connection(self):
        """One of the caller's, after a call."""
        line = next(line for line in lines("caller.jsonl") if line["id"] == "get")
        self.caller.peer.answers.extend(line["answered"])
        self.caller.over_http(line)
        return self.caller.peer.take()[0][0]

    def caller_start(self):
        first = next(f for f in self.connection().frames)
        same("first frame", (first.type, first.flags, first.stream), (h2raw.SETTINGS, 0, 0))

    def caller_unavailable(self):
        line = next(line for line in lines("caller.jsonl") if line["id"] == "answer.grpc.unavailable.once")
        self.caller.run(line)  # which looks for the GOAWAY

    def caller_idle(self):
        """A ping after 10 s, and the end 5 s after one that is not answered."""
        peer = self.connection()
        peer.answers = False
        began = time.monotonic()
        ping = harness.wait_for("a ping", lambda: next((f for f in peer.frames if f.type == h2raw.PING and not f.flags), None), 15)
        same("ping", ping.payload, bytes(8))
        harness.wait_for("the end of the connection", lambda: peer.sock.fileno() < 0, 10)
        took = time.monotonic() - began
        assert 12 < took < 20, "%.1f s" % took

    def callee_pings_1(self):
        """The fourth of pings that come too fast is answered, and the last one."""
        with h2raw.Peer(port=self.callee.internal) as peer:
            for _ in range(4):
                peer.sync()
            goaway = peer.until_closed()
            same("GOAWAY", (goaway.code, goaway.payload[8:]), (11, b"too_many_pings"))
            same("pings answered", sum(f.type == h2raw.PING and f.flags == h2raw.ACK for f in peer.frames), 4)

    def callee_no_ack(self):
        """A ping after 10 s, and the end 5 s after one that is not answered."""
        with h2raw.Peer(port=self.callee.internal) as peer:
            peer.answers = False
            ping = peer.until("a ping", lambda: next((f for f in peer.frames if f.type == h2raw.PING and not f.flags), None), 60)
            same("ping", ping.payload, bytes(8))
            peer.until_closed(60)  # at last: how long a busy machine takes says nothing
            took = time.monotonic() - ping.at
            assert took > 3, "%.1f s" % took


SIDES = [("caller.jsonl", CallerSide), ("callee.jsonl", CalleeSide), ("http2.jsonl", ConnectionSide)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    if not os.path.isdir(RECORDED):
        print("SKIP internal: the recorded calls (../shared/golden/internal) are not here")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    passed = failed = skipped = 0
    known = {side.name + "." + line["id"] for name, side in SIDES for line in lines(name)}
    for name, side_type in SIDES:
        place = Place()
        if not any(re.search(options.k, side_type.name + "." + line["id"]) for line in lines(name)):
            place.done()
            continue
        side = side_type(place)
        for line in lines(name):
            id_ = side.name + "." + line["id"]
            if not re.search(options.k, id_):
                continue
            if id_ in OUT:
                skipped += 1
                print("SKIP %s: %s" % (id_, OUT[id_]))
                continue
            try:
                side.run(line)
                passed += 1
                if options.v:
                    print("ok   %s" % id_)
            except Exception as error:  # a failed line is told, the others still run
                failed += 1
                print("FAIL %s: %s" % (id_, error if isinstance(error, AssertionError) else traceback.format_exc()), flush=True)
        trouble = side.close()
        if trouble:
            failed += 1
            print("FAIL %s: %s" % (side.name, trouble))
        place.done()
    unknown = (set(OUT) | set(BETTER)) - known
    if unknown:
        print("FAIL OUT names unknown lines: %s" % ", ".join(sorted(unknown)))
        failed += 1
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
