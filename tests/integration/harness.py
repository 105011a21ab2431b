"""Real processes for tests: sidecars on ports from the kernel, scripted apps, a small HTTP client.

Everything a test starts is ended with it, by process id. A sidecar that a sanitizer stopped, or that
ended with a crash, fails its test whatever the test looked at."""
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("OUTRIGGER_BIN", os.path.join(TOP, "build", "bin"))
BUILD = os.environ.get("OUTRIGGER_BUILD", "release")
SLOW = 1 if BUILD == "release" else 4  # sanitizers take their time
WAIT_S = 10 * SLOW


def tag(*names):
    """Which builds run this test besides the release one."""
    def mark(test):
        test.tags = names
        return test
    return mark


# ---------------------------------------------------------------- waiting
class TimedOut(AssertionError):
    pass


def wait_for(what, condition, timeout_s=None, pause_s=0.005):
    """The value of condition() once it is true; exceptions of connections count as not yet. pause_s: how exactly its time
    is to be known."""
    end, last = time.monotonic() + (timeout_s or WAIT_S), None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, EOFError) as error:
            last = error
        if time.monotonic() > end:
            raise TimedOut("%s did not happen within %.1f s%s" % (what, timeout_s or WAIT_S, " (%s)" % last if last else ""))
        time.sleep(pause_s)


# ---------------------------------------------------------------- files
def put(path, text):
    """All of it at once, as a deployment tool does, or who mounts secrets."""
    with open(path + "~", "w") as file:
        file.write(text)
    os.replace(path + "~", path)


# ---------------------------------------------------------------- ports
class Port:
    """A free port that stays ours until somebody listens there (bound, not listening, reuse allowed)."""

    def __init__(self, host="127.0.0.1"):
        self.hold = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.hold.bind(("::" if ":" in host else "0.0.0.0", 0))
        self.hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.number = self.hold.getsockname()[1]

    def release(self):
        self.hold.close()


# ---------------------------------------------------------------- connections that break
class Relay:
    """Listens on a port of its own and passes bytes on to another; cut() resets all its connections at once, on both
    sides. Lasts from its construction to close()."""

    def __init__(self, target):
        self.target, self.pairs = target, set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self.run(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.number = self.server.sockets[0].getsockname()[1]

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    async def serve(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        pair = writer, far_writer
        self.pairs.add(pair)
        # the end of one direction ends both
        _, others = await asyncio.wait([asyncio.ensure_future(self.pump(reader, far_writer)),
                                        asyncio.ensure_future(self.pump(far_reader, writer))],
                                       return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        self.pairs.discard(pair)
        for end in pair:
            end.close()

    @staticmethod
    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    def cut(self):
        """How many connections there were."""
        return self.run(self.reset_all())

    async def reset_all(self):
        pairs = list(self.pairs)
        self.pairs.clear()
        for end in (end for pair in pairs for end in pair):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        return len(pairs)

    async def end(self):
        self.server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await self.reset_all()
            await asyncio.wait(tasks, timeout=0.1)

    def close(self):
        self.run(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)
        self.loop.close()


# ---------------------------------------------------------------- HTTP client
class Reader:
    def __init__(self, sock):
        self.sock, self.have = sock, b""

    def more(self):
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise EOFError("the peer closed the connection")
        self.have += piece

    def line(self):
        while b"\n" not in self.have:
            self.more()
        line, self.have = self.have.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def headers(self):
        found = []
        while True:
            line = self.line()
            if not line:
                return found
            name, _, value = line.partition(":")
            found.append((name, value.strip()))

    def pieces(self, length):
        """Yields exactly length bytes, or all to the end when None."""
        left = length
        while left is None or left > 0:
            if not self.have:
                try:
                    self.more()
                except EOFError:
                    if left is None:
                        return
                    raise
            piece = self.have if left is None else self.have[:left]
            self.have = self.have[len(piece):]
            if left is not None:
                left -= len(piece)
            yield piece

    def exact(self, length):
        return b"".join(self.pieces(length))

    def chunks(self, trailers):
        while True:
            size = int(self.line().split(";")[0], 16)
            if size == 0:
                trailers.extend(self.headers())
                return
            yield from self.pieces(size)
            if self.line():
                raise ValueError("chunk without end")


def header(headers, name):
    """The first value, or None."""
    return next((v for n, v in headers if n.lower() == name.lower()), None)


def all_headers(headers, name):
    return [v for n, v in headers if n.lower() == name.lower()]


class Answer:
    def __init__(self, status, headers, body, trailers, interim):
        self.status, self.headers, self.body, self.trailers, self.interim = status, headers, body, trailers, interim

    def header(self, name):
        return header(self.headers, name)

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%d %r %r>" % (self.status, self.headers, self.body[:300])


class Client:
    """One connection. port: a number, or the path of a Unix socket."""

    def __init__(self, port, host="127.0.0.1", timeout_s=None):
        if isinstance(port, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout_s or WAIT_S)
            self.sock.connect(port)
        else:
            self.sock = socket.create_connection((host, port), timeout=timeout_s or WAIT_S)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def send_request(self, method, target, headers=(), body=None, trailers=()):
        """body: bytes, an iterable of bytes (chunked), or None."""
        head = "%s %s HTTP/1.1\r\n" % (method, target)
        if header(headers, "host") is None:
            head += "Host: localhost\r\n"
        head += "".join("%s: %s\r\n" % pair for pair in headers)
        if isinstance(body, bytes):
            self.send((head + "Content-Length: %d\r\n\r\n" % len(body)).encode("latin-1") + body)
        elif body is None:
            self.send(head + "\r\n")
        else:
            self.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            for piece in body:
                self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.send("0\r\n" + "".join("%s: %s\r\n" % pair for pair in trailers) + "\r\n")

    def read_head(self):
        """(status, headers, interim statuses)"""
        interim = []
        while True:
            version, status, *_ = self.reader.line().split(" ", 2)
            assert version.startswith("HTTP/1."), version
            headers = self.reader.headers()
            if int(status) == 101 or int(status) >= 200:
                return int(status), headers, interim
            interim.append(int(status))

    def body_pieces(self, method, status, headers, trailers):
        if method == "HEAD" or status in (101, 204, 304):
            return iter(())
        if (header(headers, "transfer-encoding") or "").lower() == "chunked":
            return self.reader.chunks(trailers)
        length = header(headers, "content-length")
        return self.reader.pieces(int(length) if length is not None else None)

    def read_answer(self, method="GET"):
        status, headers, interim = self.read_head()
        trailers = []
        body = b"".join(self.body_pieces(method, status, headers, trailers))
        return Answer(status, headers, body, trailers, interim)

    def call(self, method, target, headers=(), body=None, trailers=()):
        self.send_request(method, target, headers, body, trailers)
        return self.read_answer(method)


def call(port, method, target, headers=(), body=None, host="127.0.0.1", timeout_s=None, trailers=()):
    with Client(port, host, timeout_s) as client:
        return client.call(method, target, list(headers) + [("Connection", "close")], body, trailers)


def call_json(port, method, target, value, headers=(), **more):
    return call(port, method, target, [("Content-Type", "application/json"), *headers], json.dumps(value).encode(), **more)


# ---------------------------------------------------------------- apps
class Request:
    def __init__(self, method, target, headers, reader, trailers, sock):
        self.method, self.target, self.headers, self.reader, self.trailers = method, target, headers, reader, trailers
        self.path, _, self.query = target.partition("?")
        self.sock, self.body, self.at = sock, b"", time.monotonic()

    def header(self, name):
        return header(self.headers, name)

    @property
    def json(self):
        return json.loads(self.body)


def hold(request, gone=None):
    """A handler's end: answers nothing until the sidecar hangs up, which then sets the event, or releases the semaphore."""
    request.sock.settimeout(60)
    if request.sock.recv(1) == b"" and gone:
        (gone.set if isinstance(gone, threading.Event) else gone.release)()


class Reply:
    """body: bytes, an iterable (chunked; raising Cut breaks the connection off), or None."""

    def __init__(self, status=200, body=b"", headers=(), trailers=(), close=False):
        self.status, self.body, self.headers, self.trailers, self.close = status, body, list(headers), trailers, close


class Cut(Exception):
    """Raised by a handler or a body: the connection is reset."""


def reply_json(value, status=200, headers=()):
    return Reply(status, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])


class App:
    """An HTTP/1.1 server in threads. handler(request) -> Reply, with request.body read unless stream is set,
    or None when it has answered on request.sock by itself (the connection is closed then). What a sidecar
    asks of its own accord is answered here: subscriptions (None: 404), no configuration."""

    def __init__(self, handler=None, stream=False, host="127.0.0.1", port=None, subscriptions=None):
        self.handler, self.stream, self.host, self.subscriptions = handler, stream, host, subscriptions
        self.requests, self.lock = [], threading.Lock()
        self.listener, self.connections, self.is_up = None, set(), False
        self.hold = None
        self.port = port
        if port is None:
            self.hold = Port(host)
            self.port = self.hold.number
        self.accepted = 0
        self.tls = None  # an ssl.SSLContext: serve https

    def up(self):
        self.listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port))
        self.listener.listen(1024)
        self.is_up = True
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        return self

    def down(self):
        """As a process that ends: the listener and every connection are gone."""
        self.is_up = False
        if self.listener:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        self.drop_connections()

    def drop_connections(self):
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def seen(self, path=None):
        with self.lock:
            return [r for r in self.requests if path is None or r.path == path]

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.add(connection)
                self.accepted += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                with self.lock:
                    self.connections.discard(connection)
                    connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                    self.connections.add(connection)
                connection.do_handshake()
            reader = Reader(connection)
            while self.one(connection, reader):
                pass
        except Cut:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)
            connection.close()

    def one(self, connection, reader):
        method, target, _ = reader.line().split(" ", 2)
        headers, trailers = reader.headers(), []
        if (header(headers, "expect") or "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Request(method, target, headers, reader, trailers, connection)
        if (header(headers, "transfer-encoding") or "").lower() == "chunked":
            pieces = reader.chunks(trailers)
        else:
            pieces = reader.pieces(int(header(headers, "content-length") or 0))
        if self.stream:
            request.pieces = pieces
        else:
            request.body = b"".join(pieces)
        if method == "GET" and target in ("/dapr/subscribe", "/dapr/config"):
            is_asked = target == "/dapr/subscribe" and self.subscriptions is not None
            return self.send(connection, method, reply_json(self.subscriptions) if is_asked else Reply(404))
        with self.lock:
            self.requests.append(request)
        reply = self.handler(request) if self.handler else None
        if self.handler and reply is None:
            return False
        reply = reply or reply_json({"ok": True})
        return self.send(connection, method, reply)

    def send(self, connection, method, reply):
        head = "HTTP/1.1 %d Reply\r\n" % reply.status + "".join("%s: %s\r\n" % pair for pair in reply.headers)
        if reply.close:
            head += "Connection: close\r\n"
        if isinstance(reply.body, bytes):
            if reply.status not in (204, 304) and header(reply.headers, "content-length") is None:
                head += "Content-Length: %d\r\n" % len(reply.body)
            body = b"" if method == "HEAD" or reply.status in (204, 304) else reply.body
            connection.sendall((head + "\r\n").encode("latin-1") + body)
        else:
            connection.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode("latin-1"))
            for piece in reply.body:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            tail = "0\r\n" + "".join("%s: %s\r\n" % pair for pair in reply.trailers) + "\r\n"
            connection.sendall(tail.encode("latin-1"))
        return not reply.close


# ---------------------------------------------------------------- sidecars
class Sidecar:
    """One outriggerd. resources: file name -> text, config: text; flags after the usual ones."""

    def __init__(self, case, app_id, app=None, resources=None, config=None, flags=(), env=None, clean_env=False,
                 host="127.0.0.1", resources_dir=None):
        self.case, self.app_id, self.app, self.host = case, app_id, app, host
        self.dir = tempfile.mkdtemp(prefix=app_id + "-", dir=case.dir)
        self.resources = resources_dir or os.path.join(self.dir, "resources")
        os.makedirs(self.resources, exist_ok=True)
        self.flags, self.env, self.clean_env, self.config = list(flags), dict(env or {}), clean_env, None
        for name, text in (resources or {}).items():
            self.write(name, text)
        if config is not None:
            self.config = os.path.join(self.dir, "config.yaml")
            with open(self.config, "w") as file:
                file.write(config)
        self.ports = {name: Port() for name in ("http", "grpc", "internal", "metrics")}
        self.process, self.log_path = None, os.path.join(self.dir, "log")
        self.may_end = False  # the test has asked for it

    @property
    def http(self):
        return self.ports["http"].number

    @property
    def grpc(self):
        return self.ports["grpc"].number

    @property
    def metrics_port(self):
        return self.ports["metrics"].number

    @property
    def internal(self):
        return self.ports["internal"].number

    @property
    def pid(self):
        return self.process.pid

    def write(self, name, text):
        put(os.path.join(self.resources, name), text)

    def remove(self, name):
        os.unlink(os.path.join(self.resources, name))

    def argv(self):
        argv = [os.path.join(BIN, "outriggerd"), "--app-id", self.app_id, "--dapr-listen-addresses", self.host,
                "--dapr-http-port", str(self.http), "--dapr-grpc-port", str(self.ports["grpc"].number),
                "--dapr-internal-grpc-port", str(self.internal), "--metrics-port", str(self.metrics_port),
                "--resources-path", self.resources]
        if self.app is not None:
            argv += ["--app-port", str(self.app if isinstance(self.app, int) else self.app.port)]
        if self.config:
            argv += ["--config", self.config]
        return argv + self.flags + list(getattr(self.case, "sidecar_flags", ()))

    def environment(self):
        if self.clean_env:
            return dict(self.env)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_", "OTEL_"))}
        env.pop("NAMESPACE", None)
        env["OUTRIGGER_RUN_DIR"] = self.case.run_dir
        env["OUTRIGGER_LOOPS"] = "2"
        env.update(self.env)
        return env

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment(), cwd=self.dir)
        self.may_end = False  # not before: the one that was killed stands here until then
        return self

    def start(self, ready=True):
        self.launch()
        if ready:
            self.wait_ready()
        return self

    def health(self, path="/v1.0/healthz"):
        return call(self.http, "GET", path, host=self.address, timeout_s=2 * SLOW).status

    @property
    def address(self):
        return self.host.strip("[]")

    def wait_ready(self, path="/v1.0/healthz"):
        def is_ready():
            if self.process.poll() is not None:
                raise AssertionError("%s ended with %d at start:\n%s" % (self.app_id, self.process.returncode, self.log()))
            return self.health(path) == 204
        try:
            wait_for("readiness of %s" % self.app_id, is_ready)
        except TimedOut as error:
            raise AssertionError("%s\n%s" % (error, self.log()))

    def call(self, method, target, headers=(), body=None, **more):
        try:
            return call(self.http, method, target, headers, body, host=self.address, **more)
        except (OSError, EOFError):
            if not self.may_end and self.process.poll() is not None:
                raise AssertionError("%s ended with %d" % (self.app_id, self.process.returncode))
            raise

    def call_json(self, method, target, value, headers=(), **more):
        return self.call(method, target, [("Content-Type", "application/json"), *headers], json.dumps(value).encode(), **more)

    def invoke(self, app_id, method, verb="GET", headers=(), body=None, **more):
        return self.call(verb, "/v1.0/invoke/%s/method/%s" % (app_id, method), headers, body, **more)

    def publish(self, pubsub, topic, value, **more):
        return self.call_json("POST", "/v1.0/publish/%s/%s" % (pubsub, topic), value, **more)

    def metrics(self):
        return call(self.metrics_port, "GET", "/metrics").body.decode()

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def wait_log(self, text, count=1, timeout_s=None):
        wait_for("log line %r" % text, lambda: self.log().count(text) >= count, timeout_s)

    def rss_kib(self, field="VmRSS"):
        with open("/proc/%d/status" % self.pid) as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))

    def pss_kib(self):
        with open("/proc/%d/smaps_rollup" % self.pid) as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def signal(self, number):
        self.may_end = number != signal.SIGHUP
        self.process.send_signal(number)

    def wait_exit(self, timeout_s=None):
        try:
            return self.process.wait(timeout_s or WAIT_S)
        except subprocess.TimeoutExpired:
            raise TimedOut("%s did not end\n%s" % (self.app_id, self.log()))

    def stop(self):
        """Graceful; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit()

    def kill(self):
        self.may_end = True
        self.process.kill()
        self.process.wait()

    def finish(self):
        """End of the test: what is wrong with it, or None."""
        for port in self.ports.values():
            port.release()
        if not self.process:
            return None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT_S + 10)
            except subprocess.TimeoutExpired:
                self.kill()
                return "%s did not end on SIGTERM" % self.app_id
        code = self.process.returncode
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "WARNING: ThreadSanitizer",
                     "Assertion `"):
            if mark in self.log():
                return "%s: %s" % (self.app_id, mark)
        if code < 0 and code not in (-signal.SIGKILL, -signal.SIGTERM):
            return "%s was ended by signal %d" % (self.app_id, -code)
        return None


def component(name, type_, metadata=None, extra=""):
    lines = ["apiVersion: dapr.io/v1alpha1", "kind: Component", "metadata:", "  name: " + name, "spec:",
             "  type: " + type_, "  version: v1", "  metadata:"]
    for key, value in (metadata or {}).items():
        lines += ["  - name: " + key, "    value: " + json.dumps(value)]
    if not metadata:
        lines[-1] = "  metadata: []"
    return "\n".join(lines) + "\n" + extra


class Case(unittest.TestCase):
    """A temporary directory, a run directory of its own, and an end for everything that was started."""

    maxDiff = None
    # after each sidecar's own: to run other tests' cases with, or by hand (TEST_SIDECAR_FLAGS="--seccomp kill")
    sidecar_flags = tuple(os.environ.get("TEST_SIDECAR_FLAGS", "").split())

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="outrigger-test-")
        self.run_dir = os.path.join(self.dir, "run")
        self.started = []

    def tearDown(self):
        troubles = []
        for thing in reversed(self.started):
            if isinstance(thing, Sidecar):
                trouble = thing.finish()
                if trouble:
                    troubles.append("%s\n%s" % (trouble, thing.log()[-6000:]))
            elif isinstance(thing, App):
                thing.down()
                if thing.hold:
                    thing.hold.release()
            elif thing.poll() is None:
                thing.kill()
                thing.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        if troubles:
            self.fail("\n".join(troubles))

    def app(self, handler=None, is_up=True, **more):
        app = App(handler, **more)
        self.started.append(app)
        return app.up() if is_up else app

    def sidecar(self, app_id, app=None, is_started=True, is_ready=True, **more):
        sidecar = Sidecar(self, app_id, app, **more)
        self.started.append(sidecar)
        return sidecar.start(is_ready) if is_started else sidecar

    def pair(self, handler=None, stream=False, **more):
        """caller's sidecar, callee's sidecar, callee's app"""
        app = self.app(handler, stream=stream)
        return self.sidecar("caller", **more), self.sidecar("callee", app, **more), app

    def path(self, name):
        return os.path.join(self.dir, name)


def pattern(size, seed=b"x"):
    """Pieces of a body that cannot be guessed, with its digest at the end: (iterable, digest function)."""
    digest = hashlib.sha256()
    block = b"".join(hashlib.sha256(seed + bytes([i % 256, i // 256])).digest() for i in range(2048))  # 64 KiB

    def pieces():
        left, n = size, 0
        while left > 0:
            piece = struct.pack(">Q", n) + block[8:]
            piece = piece[:left]
            digest.update(piece)
            left -= len(piece)
            n += 1
            yield piece
    return pieces(), digest.hexdigest
