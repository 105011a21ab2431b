"""HTTP/2 by hand, for tests that need a peer which sends bytes as told: frames, HPACK, gRPC messages.

`Peer` is one connection, either side of it. It sends what it is told, also what no library would, keeps what
came, and answers nothing by itself but SETTINGS and PING (switch that off with answers=False)."""
import socket
import struct
import threading
import time

from harness import WAIT_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)


def frame(type_, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([type_, flags]) + struct.pack(">I", stream) + payload


def settings(values=()):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", id_, value) for id_, value in dict(values).items()))


def window_update(stream, n):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", n))


def rst(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def goaway(last, code=NO_ERROR, text=b""):
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + text)


# ---------------------------------------------------------------- HPACK (RFC 7541)
STATIC = [pair.split("=", 1) for pair in (
    ":authority= :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204 "
    ":status=206 :status=304 :status=400 :status=404 :status=500 accept-charset= accept-encoding=gzip,\0deflate "
    "accept-language= accept-ranges= accept= access-control-allow-origin= age= allow= authorization= cache-control= "
    "content-disposition= content-encoding= content-language= content-length= content-location= content-range= "
    "content-type= cookie= date= etag= expect= expires= from= host= if-match= if-modified-since= if-none-match= if-range= "
    "if-unmodified-since= last-modified= link= location= max-forwards= proxy-authenticate= proxy-authorization= range= "
    "referer= refresh= retry-after= server= set-cookie= strict-transport-security= transfer-encoding= user-agent= vary= via= "
    "www-authenticate=").split(" ")]
STATIC = [(name.encode(), value.replace("\0", " ").encode()) for name, value in STATIC]

# Lengths of appendix B's codes, symbol by symbol; the code is canonical, so they say all.
_LENGTHS = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26]


def _codes():
    """(length, code) -> symbol"""
    table, code, last = {}, 0, 0
    for length, symbol in sorted((n, s) for s, n in enumerate(_LENGTHS)):
        code <<= length - last
        table[length, code] = symbol
        code, last = code + 1, length
    return table


_CODES = _codes()


def huffman(data):
    out, code, n = bytearray(), 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, n = code << 1 | byte >> bit & 1, n + 1
            if (n, code) in _CODES:
                out.append(_CODES[n, code])
                code = n = 0
    if n > 7 or code != (1 << n) - 1:
        raise ValueError("Huffman padding")
    return bytes(out)


def hpack_int(value, bits, first=0):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def header_block(headers):
    """Literals without indexing, no Huffman code: any bytes go through."""
    return b"".join(b"\0" + hpack_int(len(_bytes(n)), 7) + _bytes(n) + hpack_int(len(_bytes(v)), 7) + _bytes(v) for n, v in headers)


class Decoder:
    def __init__(self):
        self.dynamic, self.size, self.max = [], 0, 4096

    def entry(self, index):
        return STATIC[index - 1] if index <= len(STATIC) else self.dynamic[index - len(STATIC) - 1]

    def add(self, pair):
        self.dynamic.insert(0, pair)
        self.size += len(pair[0]) + len(pair[1]) + 32
        self.evict()

    def evict(self):
        while self.size > self.max:
            name, value = self.dynamic.pop()
            self.size -= len(name) + len(value) + 32

    def decode(self, block):
        at, found = 0, []

        def integer(bits):
            nonlocal at
            limit = (1 << bits) - 1
            value, at, shift = block[at] & limit, at + 1, 0
            while value >= limit:
                byte, at = block[at], at + 1
                value, shift = value + ((byte & 127) << shift), shift + 7
                if byte < 128:
                    break
            return value

        def string():
            nonlocal at
            coded = block[at] & 128
            n = integer(7)
            text, at = block[at:at + n], at + n
            return huffman(text) if coded else bytes(text)

        while at < len(block):
            first = block[at]
            if first & 0x80:
                found.append(self.entry(integer(7)))
            elif first & 0xe0 == 0x20:
                self.max = integer(5)
                self.evict()
            else:
                is_kept = first & 0x40
                index = integer(6 if is_kept else 4)
                pair = (self.entry(index)[0] if index else string(), string())
                found.append(pair)
                if is_kept:
                    self.add(pair)
        return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in found]


# ---------------------------------------------------------------- gRPC
def message(data=b"", compressed=0):
    return struct.pack(">BI", compressed, len(data)) + data


def messages(body):
    """(flag, data) of each whole message in a body."""
    found, at = [], 0
    while at + 5 <= len(body):
        flag, n = struct.unpack_from(">BI", body, at)
        if at + 5 + n > len(body):
            break
        found.append((flag, body[at + 5:at + 5 + n]))
        at += 5 + n
    return found


def call_headers(path, authority="localhost", extra=(), content_type="application/grpc", method="POST"):
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority), ("te", "trailers"),
            ("content-type", content_type), *extra]


# ---------------------------------------------------------------- a connection
class Frame:
    def __init__(self, type_, flags, stream, payload):
        self.type, self.flags, self.stream, self.payload, self.at = type_, flags, stream, payload, time.monotonic()

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[4:8] if self.type == GOAWAY else self.payload[:4])[0]

    @property
    def last_stream(self):
        return struct.unpack(">I", self.payload[:4])[0] & 0x7fffffff

    @property
    def settings(self):
        return dict(struct.unpack_from(">HI", self.payload, i) for i in range(0, len(self.payload), 6))

    def __repr__(self):
        return "<%s flags=%d stream=%d %r>" % (("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING",
                                               "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")[self.type] if self.type < 10 else self.type,
                                              self.flags, self.stream, self.payload[:60])


class Stream:
    """What came on one stream."""

    def __init__(self, id_):
        self.id, self.heads, self.body, self.ended, self.reset = id_, [], b"", False, None  # reset: the code

    @property
    def headers(self):
        return self.heads[0] if self.heads else []

    @property
    def trailers(self):
        return self.heads[-1] if self.ended and self.heads else []

    def header(self, name):
        return next((v for head in self.heads for n, v in head if n == name), None)

    @property
    def status(self):
        """grpc-status, None when there is none yet."""
        text = self.header("grpc-status")
        return None if text is None else int(text)

    @property
    def messages(self):
        return [data for _, data in messages(self.body)]

    @property
    def is_over(self):
        return self.ended or self.reset is not None


class Peer:
    """One connection. port: connects as client; sock: an accepted one, as server, unless is_client."""

    def __init__(self, port=None, sock=None, host="127.0.0.1", with_settings=(), greets=True, answers=True, window=True,
                 timeout_s=None, receive_buffer=None, is_client=None):
        self.is_client = sock is None if is_client is None else is_client
        self.timeout_s, self.answers, self.window = timeout_s or WAIT_S, answers, window
        if sock is None:
            sock = socket.socket()
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(self.timeout_s)
            sock.connect((host, port))
        self.sock = sock
        sock.settimeout(self.timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.have, self.decoder, self.frames, self.streams, self.next_id = b"", Decoder(), [], {}, 1
        self.block, self.is_closed, self.lock = None, False, threading.Lock()
        if not self.is_client:
            while len(self.have) < len(PREFACE):
                self.more()
            assert self.have.startswith(PREFACE), self.have
            self.have = self.have[len(PREFACE):]
        if greets:
            self.send((PREFACE if self.is_client else b"") + settings(with_settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, *frames):
        with self.lock:
            self.sock.sendall(b"".join(frames))

    def more(self):
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise EOFError("the peer closed the connection")
        self.have += piece

    def read_frame(self):
        """The next one, after it was noted and answered."""
        while len(self.have) < 9:
            self.more()
        n = struct.unpack(">I", b"\0" + self.have[:3])[0]
        while len(self.have) < 9 + n:
            self.more()
        got = Frame(self.have[3], self.have[4], struct.unpack(">I", self.have[5:9])[0] & 0x7fffffff, self.have[9:9 + n])
        self.have = self.have[9 + n:]
        self.note(got)
        return got

    def stream(self, id_):
        return self.streams.setdefault(id_, Stream(id_))

    def note(self, got):
        self.frames.append(got)
        if self.answers and got.type in (SETTINGS, PING) and not got.flags & ACK:
            self.send(frame(got.type, ACK, 0, got.payload if got.type == PING else b""))
        if got.type in (HEADERS, CONTINUATION):
            payload = got.payload
            if got.type == HEADERS:
                padding = payload[0] if got.flags & PADDED else 0
                skipped = bool(got.flags & PADDED) + 5 * bool(got.flags & WITH_PRIORITY)
                self.block = [payload[skipped:len(payload) - padding], got.flags & END_STREAM]
            else:
                self.block[0] += payload
            if got.flags & END_HEADERS:
                stream = self.stream(got.stream)
                stream.heads.append(self.decoder.decode(self.block[0]))
                stream.ended |= bool(self.block[1])
        elif got.type == DATA:
            stream = self.stream(got.stream)
            stream.body += got.payload
            stream.ended |= bool(got.flags & END_STREAM)
            if self.window and got.payload:
                self.send(window_update(0, len(got.payload)),
                          b"" if stream.is_over else window_update(got.stream, len(got.payload)))
        elif got.type == RST_STREAM:
            self.stream(got.stream).reset = got.code

    def until(self, what, condition, timeout_s=None):
        """Reads frames until condition() is true and gives its value. The end of the connection ends the wait too."""
        end = time.monotonic() + (timeout_s or self.timeout_s)
        while True:
            value = condition()
            if value:
                return value
            left = end - time.monotonic()
            if left <= 0 or self.is_closed:
                raise AssertionError("%s did not happen: %r" % (what, self.frames[-20:]))
            self.sock.settimeout(left)
            try:
                self.read_frame()
            except (EOFError, ConnectionError):
                self.is_closed = True
            except TimeoutError:
                pass

    def first(self, type_, flags=0):
        return next((f for f in self.frames if f.type == type_ and f.flags & flags == flags), None)

    def until_frame(self, type_, flags=0, timeout_s=None):
        return self.until("frame of type %d" % type_, lambda: self.first(type_, flags), timeout_s)

    def until_over(self, stream, timeout_s=None):
        self.until("end of stream %d" % stream.id, lambda: stream.is_over, timeout_s)
        return stream

    def until_closed(self, timeout_s=None):
        """Reads to the end of the connection; the last GOAWAY or None."""
        self.until("end of the connection", lambda: self.is_closed, timeout_s)
        return next((f for f in reversed(self.frames) if f.type == GOAWAY), None)

    def sync(self, timeout_s=None):
        """A ping there and back: what was sent before has been read."""
        mark = b"sync%04d" % (len(self.frames) % 10000)
        self.send(frame(PING, 0, 0, mark))
        self.until("answer to a ping", lambda: any(f.type == PING and f.flags & ACK and f.payload == mark for f in self.frames),
                   timeout_s)

    # ------------------------------------------------------------ as client
    def begin(self, headers, ends=False):
        """HEADERS of a new stream."""
        stream = self.stream(self.next_id)
        self.next_id += 2
        self.send_headers(stream.id, headers, ends)
        return stream

    def send_headers(self, id_, headers, ends=False):
        block = headers if isinstance(headers, bytes) else header_block(headers)
        parts = [block[i:i + 16384] for i in range(0, len(block), 16384)] or [b""]
        frames = [frame(HEADERS, (END_STREAM if ends else 0) | (END_HEADERS if len(parts) == 1 else 0), id_, parts[0])]
        frames += [frame(CONTINUATION, END_HEADERS if part is parts[-1] else 0, id_, part) for part in parts[1:]]
        self.send(*frames)

    def send_data(self, id_, data, ends=False):
        parts = [data[i:i + 16384] for i in range(0, len(data), 16384)] or [b""]
        self.send(*(frame(DATA, END_STREAM if ends and i == len(parts) - 1 else 0, id_, part) for i, part in enumerate(parts)))

    def begin_call(self, path, body=b"", extra=(), ends=True, **more):
        """A gRPC call: head, and body (messages as framed)."""
        stream = self.begin(call_headers(path, extra=extra, **more))
        if body or ends:
            self.send_data(stream.id, body, ends)
        return stream

    def call(self, path, data=b"", extra=(), timeout_s=None, **more):
        """A unary gRPC call to its end."""
        return self.until_over(self.begin_call(path, message(data), extra, **more), timeout_s)

    # ------------------------------------------------------------ as server
    def until_request(self, timeout_s=None, whole=True):
        """The next request nobody has taken yet."""
        def found():
            return next((s for s in self.streams.values()
                         if s.heads and not getattr(s, "is_taken", False) and (s.ended or not whole)), None)
        stream = self.until("request", found, timeout_s)
        stream.is_taken = True
        return stream

    def respond(self, id_, data=(), status=0, text="", headers=(), trailers=()):
        """A gRPC answer: a message for each of data, then the status. data None: trailers only."""
        end = [("grpc-status", str(status))] + ([("grpc-message", text)] if text else []) + list(trailers)
        head = [(":status", "200"), ("content-type", "application/grpc"), *headers]
        if data is None:
            self.send_headers(id_, head + end, True)
            return
        self.send_headers(id_, head)
        for one in data:
            self.send_data(id_, message(one))
        self.send_headers(id_, end, True)


class Server:
    """Accepts on a port from the kernel; run(peer) in a thread for each connection."""

    def __init__(self, run, with_settings=(), port=0):
        self.run, self.with_settings, self.peers = run, with_settings, []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        try:
            with Peer(sock=sock, with_settings=self.with_settings) as peer:
                self.peers.append(peer)
                self.run(peer)
        except (OSError, EOFError, AssertionError):
            pass

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for peer in self.peers:
            peer.close()
