"""Who serves an app id: multicast DNS among sidecars and with a stand-in for daprd's library, on loopback; Consul, of which no
registry of packages has the server, so its API is played."""
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
from urllib.parse import parse_qs, unquote

from harness import SLOW, Case, Reply, reply_json, tag, wait_for

GROUP, PORT = "224.0.0.251", 5353


def config(component, **settings):
    lines = ["apiVersion: dapr.io/v1alpha1", "kind: Configuration", "metadata: {name: c}", "spec:", "  nameResolution:",
             "    component: " + component, "    version: v1", "    configuration:"]
    return "\n".join(lines + ["      %s: \"%s\"" % pair for pair in settings.items()]) + "\n"


MDNS = config("mdns", interfaces="lo")


def labels_at(sidecar, app_id):
    """What a sidecar knows of an app's instances: internal port -> labels."""
    found = sidecar.call("GET", "/v1.0/outrigger/endpoints/" + app_id).json
    return {int(i["address"].rpartition(":")[2]): i["labels"] for c in found["callees"] for i in c["instances"]}


# ---------------------------------------------------------------- messages of DNS
def pack_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def read_name(data, at):
    labels, end = [], None
    while data[at]:
        if len(labels) > 20:
            raise IndexError
        if data[at] & 0xC0:
            if (data[at] & 0x3F) << 8 | data[at + 1] >= at:
                raise IndexError
            end = end or at + 2
            at = (data[at] & 0x3F) << 8 | data[at + 1]
            continue
        labels.append(data[at + 1:at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels), end or at + 1


def record(name, type_, data, ttl=3200, flush=True):
    return pack_name(name) + struct.pack(">HHIH", type_, 0x8001 if flush else 1, ttl, len(data)) + data


class Mdns:
    """One that speaks multicast DNS as the library of daprd does: registers services, browses."""

    def __init__(self, case):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.sock.bind(("", PORT))
        lo = socket.if_nametoindex("lo")
        through = struct.pack("@4s4si", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"), lo)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, through)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, through)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        self.services, self.found, self.queries = {}, {}, []
        case.addCleanup(self.close)
        threading.Thread(target=self.run, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def send(self, message):
        self.sock.sendto(message, (GROUP, PORT))

    def ask(self, service):
        self.send(struct.pack(">HHHHHH", 0, 0, 1, 0, 0, 0) + pack_name(service) + struct.pack(">HH", 12, 1))

    def answer(self, service, ttl=3200):
        own, host, port = self.services[service]
        app = service.partition(".")[0].encode()
        records = [record(service, 12, pack_name(own), ttl, False),
                   record(own, 33, struct.pack(">HHH", 0, 0, port) + pack_name(host), ttl),
                   record(own, 16, bytes([len(app)]) + app, ttl), record(host, 1, socket.inet_aton("127.0.0.1"), ttl)]
        self.send(struct.pack(">HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records))

    def run(self):
        while True:
            try:
                data, _ = self.sock.recvfrom(9000)
            except OSError:
                return
            with contextlib.suppress(IndexError, struct.error):
                self.take(data)

    def take(self, data):
        _, flags, questions, *counts = struct.unpack_from(">HHHHHH", data)
        at = 12
        for _ in range(questions):
            name, at = read_name(data, at)
            at += 4
            self.queries.append(name)
            if not flags & 0x8000 and name in self.services:
                self.answer(name)
        for _ in range(sum(counts)):
            name, at = read_name(data, at)
            type_, _, ttl, length = struct.unpack_from(">HHIH", data, at)
            at += 10
            value = data[at:at + length]
            if type_ in (12, 33):
                target = read_name(data, at + (6 if type_ == 33 else 0))[0]
                value = (struct.unpack_from(">H", data, at + 4)[0], target) if type_ == 33 else target
            self.found.setdefault((name, type_), []).append((ttl, value))
            at += length


class MulticastDns(Case):
    def setUp(self):
        super().setUp()
        peer = Mdns(self)
        peer.ask("is-anybody-there.local")
        try:
            wait_for("our own question", lambda: peer.queries, 10)
        except AssertionError:
            self.skipTest("loopback carries no multicast here")

    @tag("debug", "tsan")
    def test_sidecars_find_each_other(self):
        app = self.app()
        a = self.sidecar("mdns-caller", config=MDNS)
        self.assertEqual(a.invoke("mdns-callee", "x").status, 500)
        b = self.sidecar("mdns-callee", app, config=MDNS, flags=("--labels", "zone=a,version=2"))
        wait_for("the call", lambda: a.invoke("mdns-callee", "x").status == 200, 60)
        self.assertEqual(labels_at(a, "mdns-callee"), {b.internal: {"version": "2", "zone": "a"}})
        self.assertEqual(b.stop(), 0)  # it says goodbye
        wait_for("the end of it", lambda: a.invoke("mdns-callee", "x").status != 200, 60)
        self.sidecar("mdns-callee", app, config=MDNS)  # on another port
        wait_for("the call", lambda: a.invoke("mdns-callee", "x").status == 200, 60)

    @tag("debug")
    def test_what_is_told_is_what_daprd_looks_for(self):
        peer = Mdns(self)
        a = self.sidecar("mdns-told", self.app(), config=MDNS, flags=("--labels", "zone=a,version=2"))
        service = "mdns-told.local"
        peer.ask(service)
        own = wait_for("the answer", lambda: peer.found.get((service, 12)), 60)[0][1]
        port, host = wait_for("its place", lambda: peer.found.get((own, 33)), 60)[0][1]
        self.assertEqual(port, a.internal)
        self.assertTrue(own.endswith("." + service))
        self.assertEqual(wait_for("its text", lambda: peer.found.get((own, 16)), 60)[0][1],
                         b"\tmdns-told\tversion=2\x06zone=a")  # daprd looks at the first alone
        self.assertEqual(len(wait_for("its address", lambda: peer.found.get((host, 1)), 60)[0][1]), 4)
        self.assertEqual(a.stop(), 0)
        wait_for("goodbye", lambda: any(ttl == 0 for ttl, _ in peer.found[(own, 33)]), 60)

    @tag("debug")
    def test_what_daprd_tells_is_found_and_nonsense_is_not(self):
        peer, app = Mdns(self), self.app()
        a = self.sidecar("mdns-asker", config=MDNS)
        b = self.sidecar("mdns-kitchen", app)  # registered in the file, which nobody here reads
        peer.services["mdns-kitchen.local"] = ("host:123.mdns-kitchen.local", "box.local", b.internal)
        for nonsense in (b"", b"x" * 12, b"\0" * 500, b"\0\0\x84\0\0\0\xff\xff\0\0\0\0" + b"\xc0\x0c" * 300,
                         struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0) + pack_name("a.mdns-kitchen.local") + b"\0\x21\0\1"):
            peer.send(nonsense)
        wait_for("the call", lambda: a.invoke("mdns-kitchen", "x").status == 200, 60)
        self.assertEqual([r.path for r in app.seen("/x")], ["/x"])
        self.assertIn("mdns-kitchen.local", peer.queries)


# In a network of its own: as many interfaces as a sidecar looks at, which make room for others.
CHANGE = """
import signal, socket, struct, subprocess, sys

def ip(*args):
    subprocess.run(["ip", *args], check=True)

def add(one, other):
    ip("link", "add", one, "type", "veth", "peer", "name", other)
    for end in (one, other):
        ip("link", "set", end, "up")

def heard(name):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("ff02::fb", 5353, 0, socket.if_nametoindex(name)))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                    socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("@I", socket.if_nametoindex(name)))
    while b"kitchen" not in sock.recv(9000):
        pass

signal.signal(signal.SIGALRM, lambda *_: sys.exit("nothing was heard"))
signal.alarm(int(sys.argv[1]))
ip("link", "set", "lo", "up")
for i in range(8):
    add("a%d" % i, "b%d" % i)
sidecar = subprocess.Popen(sys.argv[2:])
try:
    heard("b0")
    for i in range(8):
        ip("link", "del", "a%d" % i)
    add("n0", "n1")
    heard("n1")
finally:
    sidecar.terminate()
sys.exit(sidecar.wait())
"""


class Interfaces(Case):
    def test_an_interface_that_comes_after_many_have_gone_is_used(self):
        """At once: the kernel tells of it."""
        tries = ["unshare", "-n", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]
        if not shutil.which("ip") or subprocess.run(tries, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no right to make network namespaces here, or no ip")
        sidecar = self.sidecar("kitchen", config=config("mdns"), is_started=False)
        done = subprocess.run(["unshare", "-n", sys.executable, "-c", CHANGE, str(5 * SLOW), *sidecar.argv()], env=sidecar.environment(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:])


# In a network and with a resolv.conf of its own: a server of names for services, which answers one question by TCP alone.
NAMES = """
import http.server, json, signal, socket, struct, subprocess, sys, threading, urllib.request

resolv, caller, callee, port, internal = sys.argv[1:6]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)
signal.alarm(100)

def name(text):
    return b"".join(bytes([len(l)]) + l.encode() for l in text.split(".")) + b"\\0"

def answer(query, is_tcp):
    end = query.index(b"\\0", 12) + 1
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    asked, (type_,) = ".".join(labels), struct.unpack_from(">H", query, end)
    records = []
    if asked == "_internal._tcp.kitchen.mesh.test" and type_ == 33:
        for priority, port, host in ((5, 1, "nobody.mesh.test"), (1, int(internal), "kitchen.mesh.test")):
            records.append((33, struct.pack(">HHH", priority, 0, port) + name(host)))
    elif asked == "kitchen.mesh.test" and type_ == 1:
        records.append((1, socket.inet_aton("127.0.0.1")))
    cut = type_ == 33 and records and not is_tcp
    flags = 0x8580 | (0x200 if cut else 0) | (0 if records or asked == "kitchen.mesh.test" else 3)
    body = b"" if cut else b"".join(b"\\xc0\\x0c" + struct.pack(">HHIH", t, 1, 1, len(d)) + d for t, d in records)
    return query[:2] + struct.pack(">HHHHH", flags, 1, 0 if cut else len(records), 0, 0) + query[12:end + 4] + body

def udp(sock):
    while True:
        query, peer = sock.recvfrom(4096)
        sock.sendto(answer(query, False), peer)

def tcp(sock):
    while True:
        peer = sock.accept()[0]
        n, = struct.unpack(">H", peer.recv(2))
        out = answer(peer.recv(n), True)
        peer.sendall(struct.pack(">H", len(out)) + out)
        peer.close()

for kind, run in ((socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)):
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 53))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    threading.Thread(target=run, args=(sock,), daemon=True).start()
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", 8000), App).serve_forever, daemon=True).start()
sidecars = [subprocess.Popen(json.loads(argv)) for argv in (callee, caller)]
status = None
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while status != 200:
    try:
        status = opener.open("http://127.0.0.1:%s/v1.0/invoke/kitchen/method/x" % port).status
    except OSError:
        status = None
for sidecar in sidecars:
    sidecar.terminate()
sys.exit(max(sidecar.wait() for sidecar in sidecars))
"""


class Services(Case):
    def test_a_service_in_dns_says_host_and_port(self):
        tries = ["unshare", "-mn", "sh", "-c", "ip link set lo up && mount --bind /dev/null /etc/resolv.conf"]
        if not shutil.which("ip") or subprocess.run(tries, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no right to make network namespaces and mounts here, or no ip")
        resolv = self.path("resolv.conf")
        with open(resolv, "w") as file:
            file.write("nameserver 127.0.0.1\noptions timeout:2\n")
        dns = config("dns", format="_internal._tcp.{appid}.mesh.test")
        a = self.sidecar("waiter", config=dns, is_started=False)
        b = self.sidecar("kitchen", 8000, config=config("static", x="127.0.0.1"), is_started=False)
        done = subprocess.run(["unshare", "-mn", sys.executable, "-c", NAMES, resolv, json.dumps(a.argv()), json.dumps(b.argv()),
                               str(a.http), str(b.internal)], env=a.environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:])


class Consul(Case):
    """A stand-in for the agent: registrations in memory, answers as Consul's API gives them, blocking queries too."""

    def agent(self, **more):
        self.services, self.seen, self.broken, self.more = {}, [], None, {}
        self.index, self.change, self.is_over = 7, threading.Condition(), False
        self.addCleanup(self.touch, True)
        return self.app(self.serve, **more)

    def touch(self, is_over=False):
        with self.change:
            self.index += 1
            self.is_over |= is_over
            self.change.notify_all()

    def wait_index(self, query):
        known = int(query.get("index", ["0"])[0])
        with self.change:
            self.change.wait_for(lambda: self.index != known or self.is_over, 60)
            return [("X-Consul-Index", str(self.index))]

    def serve(self, request):
        self.seen.append((request.method, request.target, request.header("x-consul-token")))
        if self.broken:
            return self.broken(request)
        if request.path == "/v1/agent/service/register":
            is_new = self.services.get(request.json["ID"]) != request.json
            self.services[request.json["ID"]] = request.json
            if is_new:
                self.touch()
            return Reply(200)
        if request.path.startswith("/v1/agent/service/deregister/"):
            self.services.pop(unquote(request.path.rpartition("/")[2]), None)
            self.touch()
            return Reply(200)
        name = unquote(request.path.rpartition("/")[2])
        index = self.wait_index(parse_qs(request.target.partition("?")[2]))
        return reply_json([dict({"Node": {"Address": "127.0.0.1"}, "Service": dict(s, Service=s["Name"])}, **self.more)
                           for s in list(self.services.values()) if s["Name"] == name], headers=index)

    def config(self, agent, registers=True, more="", client=""):
        return config("consul", selfRegister=str(registers).lower(), selfDeregister=str(registers).lower()) + (
            "      client: {address: \"127.0.0.1:%d\", token: secret%s}\n      tags: [one]\n      meta: {zone: a}\n%s" %
            (agent.port, client, more))

    @tag("debug", "tsan")
    def test_a_sidecar_registers_is_found_and_leaves(self):
        agent, app = self.agent(), self.app()
        b = self.sidecar("kitchen", app, config=self.config(agent))
        service, = self.services.values()
        self.assertEqual((service["Name"], service["Meta"], service["Tags"]),
                         ("kitchen", {"zone": "a", "DAPR_PORT": str(b.internal)}, ["one"]))
        self.assertEqual(service["Checks"][0]["CheckID"], "daprHealth:" + service["ID"])
        a = self.sidecar("waiter", config=self.config(agent, False))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        self.assertIn(("GET", "/v1/health/service/kitchen?passing=true", "secret"), self.seen)
        self.assertEqual(a.invoke("nobody", "x").status, 500)
        self.assertEqual(b.stop(), 0)
        self.assertEqual(self.services, {})

    @tag("debug")
    def test_what_is_known_outlives_the_agent_and_a_restart(self):
        agent, app = self.agent(), self.app()
        self.sidecar("kitchen", app, config=self.config(agent))
        a = self.sidecar("waiter", config=self.config(agent, False))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        for broken in (lambda r: Reply(500, b"no leader"), lambda r: Reply(200, b"<html>"), lambda r: reply_json({"a": 1})):
            self.broken = broken
            self.assertEqual(a.invoke("kitchen", "x").status, 200)
        agent.down()
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        self.assertEqual(a.stop(), 0)
        a.start()
        self.assertEqual(a.invoke("kitchen", "x").status, 200)  # from disk
        answer = a.invoke("nobody", "x")
        self.assertEqual(answer.status, 500)

    @tag("debug", "tsan")
    def test_names_in_use_are_watched(self):
        agent = self.agent()
        b = self.sidecar("kitchen", self.app(lambda r: Reply(200, b"b")), config=self.config(agent), flags=("--labels", "version=2"))
        a = self.sidecar("waiter", config=self.config(agent, False))
        self.assertEqual(a.invoke("kitchen", "x").body, b"b")
        self.assertEqual(labels_at(a, "kitchen"), {b.internal: {"version": "2", "zone": "a"}})

        def watches():
            return [target for _, target, _ in self.seen if "index=%d&wait=60s" % self.index in target]
        wait_for("the query that waits", watches, 60)
        self.sidecar("kitchen", self.app(lambda r: Reply(200, b"c")), config=self.config(agent))
        wait_for("another one", watches, 60)  # without a call in between: it heard of the new one
        wait_for("the new one", lambda: a.invoke("kitchen", "x").body == b"c", 60)
        self.assertEqual(b.stop(), 0)
        wait_for("another one", watches, 60)
        self.broken = lambda r: Reply(500, b"no leader")
        self.touch()
        self.assertEqual(a.invoke("kitchen", "x").body, b"c")
        self.broken, self.index = None, 3  # an agent that was set up anew counts from the start
        wait_for("a query of the new index", watches, 60)
        self.assertEqual(a.stop(), 0)

    @tag("debug")
    def test_what_is_configured_is_said(self):
        agent, app = self.agent(), self.app()
        with open(self.path("token"), "w") as file:
            file.write("from-file\n")
        options = ("      queryOptions: {datacenter: east, near: _agent, allowStale: true, nodeMeta: {a: b}, filter: \"x == y\"}\n"
                   "      advancedRegistration: {ID: mine, Name: kitchen, Tags: [two], Check: {TTL: 1s}, Meta: {zone: b}}\n")
        client = ", httpAuth: {username: me, password: \"it:self\"}, namespace: ns, datacenter: west"
        b = self.sidecar("kitchen", app, config=self.config(agent, more=options, client=client))
        service = dict(self.services["mine"])
        self.assertTrue(service.pop("Address"))
        self.assertEqual(service, {"ID": "mine", "Name": "kitchen", "Tags": ["two"], "Check": {"TTL": "1s"}, "Port": b.internal,
                                   "Meta": {"zone": "b", "DAPR_PORT": str(b.internal)}})
        a = self.sidecar("waiter", config=self.config(agent, False, options.split("      advanced")[0], client))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        self.assertIn("/v1/health/service/kitchen?passing=true&dc=east&ns=ns&near=_agent&filter=x%20%3D%3D%20y&stale&node-meta=a%3Ab",
                      [target for _, target, _ in self.seen])
        self.assertEqual({r.header("authorization") for r in agent.seen()}, {"Basic bWU6aXQ6c2VsZg=="})
        c = self.sidecar("third", config=self.config(agent, False).replace("token: secret", "tokenFile: " + self.path("token")))
        c.invoke("kitchen", "x")
        self.assertIn("from-file", [token for _, _, token in self.seen])

    def test_mistakes_are_named(self):
        a = self.sidecar("waiter", self.app(), config=self.config(
            self.agent(), False, "      queryOptions: {dc: east, waitTime: 1}\n", ", adress: x, httpAuth: {user: x}"))
        a.wait_log("is not acted on", 4)
        told = " ".join(line for line in a.log().splitlines() if "is not acted on" in line)
        for field in ("dc", "waitTime", "adress", "user"):
            self.assertIn(field, told)
        self.assertEqual(a.invoke("kitchen", "x").status, 500)
        for more, client, text in (("", ", tlsConfig: {caFile: /nowhere}", "client.tlsConfig: caFile"),
                                   ("", ", tlsConfig: {caPath: /tmp}", "caFile instead of caPath"),
                                   ("      queryOptions: [1]\n", "", "queryOptions: must be a mapping"),
                                   ("      queryOptions: {allowStale: true, requireConsistent: true}\n", "", "exclude each other"),
                                   ("      advancedRegistration: {Meta: 1}\n", "", "advancedRegistration.Meta")):
            a = self.sidecar("waiter", config=self.config(self.agent(is_up=False), more=more, client=client))
            a.wait_log("name resolution failed to start", timeout_s=60)
            self.assertIn(text, a.log())
            self.assertEqual(a.stop(), 0)

    @tag("debug")
    def test_an_agent_that_hangs_costs_no_call_of_a_known_name(self):
        agent, leave = self.agent(), threading.Event()
        self.addCleanup(leave.set)
        self.sidecar("kitchen", self.app(), config=self.config(agent))
        a = self.sidecar("waiter", config=self.config(agent, False))
        self.assertEqual(a.invoke("kitchen", "x").status, 200)
        self.broken = lambda r: leave.wait(120) and Reply(500)
        wait_for("a question that hangs", lambda: a.invoke("kitchen", "x").status == 200 and len(agent.seen()) > 4, 60)
        for _ in range(50):
            self.assertEqual(a.invoke("kitchen", "x", timeout_s=4).status, 200)  # less than a question may take
        leave.set()
        self.assertEqual(a.stop(), 0)

    def test_an_agent_that_comes_late_is_told(self):
        agent = self.agent(is_up=False)
        self.sidecar("kitchen", self.app(), config=self.config(agent))
        self.assertEqual(self.services, {})
        agent.up()
        wait_for("the registration", lambda: self.services, 60)

    def test_one_more_of_two_hundred_instances_is_found(self):
        agent = self.agent()
        self.sidecar("kitchen", self.app(lambda r: Reply(200, b"old")), config=self.config(agent))
        a = self.sidecar("waiter", config=self.config(agent, False), env={"OUTRIGGER_LOOPS": "1"})
        first, = self.services.values()
        for i in range(200):  # by the same address, so that each call has an answer
            self.services["copy-%d" % i] = dict(first, ID="copy-%d" % i)
        check = {"Node": "n", "CheckID": "c", "Name": "serf", "Status": "passing", "Notes": "", "Output": "", "ServiceID": "",
                 "ServiceName": "", "ServiceTags": [], "Type": "", "Interval": "", "Timeout": "", "ExposedPort": 0,
                 "Definition": {}, "CreateIndex": 7, "ModifyIndex": 7}
        self.more = {"Checks": [check] * 4}  # as much as Consul says of each
        self.assertEqual(a.invoke("kitchen", "x").body, b"old")
        self.sidecar("kitchen", self.app(lambda r: Reply(200, b"new")), config=self.config(agent))
        wait_for("the new instance", lambda: a.invoke("kitchen", "x").body == b"new", 60)
