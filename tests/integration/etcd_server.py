"""An etcd of a test's own on ports from the kernel, and its JSON gateway."""
import base64
import json
import os
import shutil
import signal
import subprocess
import unittest
import urllib.error
import urllib.request

from harness import Port, wait_for

needs_etcd = unittest.skipUnless(shutil.which("etcd"), "etcd is not here (Debian's etcd-server)")


def b64(text):
    return base64.b64encode(text.encode()).decode()


class EtcdServer:
    """Started with its test and ended with it. Its ports stay its own while it is down, and so do its data."""

    def __init__(self, case, *options, scheme="http", context=None, peer=None, members=None):
        """peer, members: of one of several, its own port and all of them."""
        self.case, self.port, self.peer, self.token, self.password = case, Port(), peer or Port(), None, None
        self.host = "127.0.0.1:%d" % self.port.number
        self.dir = case.path("etcd-%d" % self.port.number)
        url, peer = "%s://%s" % (scheme, self.host), self.peer_url(self.peer)
        self.url = url
        self.argv = ["etcd", "--name", "e%d" % self.peer.number, "--data-dir", self.dir, "--listen-client-urls", url, "--advertise-client-urls", url,
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", ",".join("e%d=%s" % (p.number, self.peer_url(p)) for p in members or [self.peer]),
                     "--logger", "zap", *options]
        self.context = context  # of TLS
        self.process = None

    @staticmethod
    def peer_url(port):
        return "http://127.0.0.1:%d" % port.number

    @classmethod
    def cluster(cls, case, count):
        peers = [Port() for _ in range(count)]
        servers = [cls(case, peer=peer, members=peers) for peer in peers]
        for server in servers:
            server.launch()
        for server in servers:
            wait_for("etcd", server.is_ready, 60)
        return servers

    def start(self):
        self.launch()
        wait_for("etcd", self.is_ready, 60)
        return self

    def launch(self):
        with open(self.case.path("etcd-%d.log" % self.port.number), "ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log)
        self.case.started.append(self.process)

    def is_ready(self):
        try:
            return self.ask("kv/range", key=b64("x")) is not None
        except (OSError, ValueError) as error:
            return isinstance(error, urllib.error.HTTPError) and error.code in (400, 401, 403)

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)
        self.process.wait()

    def wipe(self):
        shutil.rmtree(self.dir)

    def ask(self, method, **body):
        headers = {"Authorization": self.token} if self.token else {}
        request = urllib.request.Request("%s/v3/%s" % (self.url, method), json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 401 or not self.token:
                raise
        self.login()  # the token was over
        return self.ask(method, **body)

    def raw(self):
        """What the sidecars keep: key -> bytes."""
        found = self.ask("kv/range", key=b64("/outrigger/instances/"), range_end=b64("/outrigger/instances0")).get("kvs", [])
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv.get("value", "")) for kv in found}

    def keys(self):
        return {key: json.loads(value) for key, value in self.raw().items()}

    def put(self, key, value):
        self.ask("kv/put", key=b64(key), value=b64(value if isinstance(value, str) else json.dumps(value)))

    def remove(self, key):
        self.ask("kv/deleterange", key=b64(key))

    def secure(self, user, password):
        """Nobody without a password from here on."""
        self.ask("auth/user/add", name="root", password=password)
        self.ask("auth/user/grant", user="root", role="root")
        self.ask("auth/role/add", name="sidecars")
        self.ask("auth/role/grant", name="sidecars",
                 perm={"permType": "READWRITE", "key": b64("/outrigger/"), "range_end": b64("/outrigger0")})
        self.ask("auth/user/add", name=user, password=password)
        self.ask("auth/user/grant", user=user, role="sidecars")
        self.ask("auth/enable")
        self.password = password
        self.login()

    def login(self):
        self.token = None
        self.token = self.ask("auth/authenticate", name="root", password=self.password)["token"]
