"""A redis-server of a test's own on a port from the kernel, and what redis-cli says of its data."""
import os
import shutil
import signal
import socket
import subprocess
import unittest

from harness import Port, wait_for

HAS_REDIS = bool(shutil.which("redis-server") and shutil.which("redis-cli"))
needs_redis = unittest.skipUnless(HAS_REDIS, "redis-server is not here")


class RedisServer:
    """Started with its test and ended with it. The port stays its own while it is down. data: the folder of
    another one that is down."""

    def __init__(self, case, *options, durable=False, data=None):
        self.port = Port()
        self.host = "127.0.0.1:%d" % self.port.number
        self.dir = data or case.path("redis-%d" % self.port.number)
        os.makedirs(self.dir, exist_ok=True)
        self.options = ["--port", str(self.port.number), "--bind", "127.0.0.1", "--dir", self.dir, "--save", "",
                        "--appendonly", "yes" if durable else "no", "--appendfsync", "always", *options]
        if "--cluster-enabled" in options:  # else its bus would be at port + 10000, which may be none
            self.bus = Port()
            self.options += ["--cluster-port", str(self.bus.number)]
        self.process = None
        self.case = case
        self.start()

    def start(self):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(["redis-server", *self.options], stdout=log, stderr=log)
        self.case.started.append(self.process)
        wait_for("redis-server", self.is_ready, 60)

    def is_ready(self):
        try:
            return self.command("PING") == "PONG"
        except RuntimeError as error:  # it reads its data, or it wants a password
            return not str(error).startswith("LOADING")

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)
        self.process.wait()

    def command(self, *args):
        """The answer to one command; errors are RuntimeError."""
        with socket.create_connection(("127.0.0.1", self.port.number), 30) as sock:
            parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
            sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            with sock.makefile("rb") as file:
                return self.read(file)

    def read(self, file):
        line = file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RuntimeError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
        return None if rest == "-1" else [self.read(file) for _ in range(int(rest))]

    def cli(self, *args):
        """What redis-cli prints, raw."""
        done = subprocess.run(["redis-cli", "-p", str(self.port.number), "--raw", *args], stdout=subprocess.PIPE,
                              check=True, timeout=60)
        return done.stdout.decode().rstrip("\n")

    def hash(self, key):
        fields = self.command("HGETALL", key)
        return dict(zip(fields[::2], fields[1::2]))
