"""README, "Secure two machines in three commands": its lines, executed in two network namespaces.

Needs the right to make namespaces (root, and a container that lets it); without, it is skipped."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys

from harness import BIN, SLOW, TOP, WAIT_S, Case, tag, wait_for
from pki import openssl, read

SNIFFER = """
import signal, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.bind((sys.argv[1], 0))
out = open(sys.argv[2], 'wb', buffering=0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('sniffing', flush=True)
while True:
    frame = s.recv(65536)
    if frame[12:14] != b'\\x08\\x00' or frame[23] != 6:
        continue
    ip = frame[14:14 + int.from_bytes(frame[16:18], 'big')]
    head = (ip[0] & 15) * 4
    tcp = ip[head:]
    body = tcp[(tcp[12] >> 4) * 4:]
    if body:
        out.write(tcp[:4] + len(body).to_bytes(4, 'big') + body)
"""
PLAIN = """
import socket, sys
s = socket.create_connection((sys.argv[1], 50010), timeout=60)
s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0')
got = b''
try:
    while piece := s.recv(4096):
        got += piece
except ConnectionResetError:
    pass
print('answered' if len(got) > 7 or (got and got[0] != 0x15) else 'refused')
"""


def section(title):
    return re.search(r"^## %s\n(.*?)^## " % re.escape(title), read(os.path.join(TOP, "README.md")), re.M | re.S)[1]


def commands():
    """[(machine, command)] as they stand there, and the text of places.yaml."""
    text = section("Secure two machines in three commands")
    lines = re.findall(r"^    ([ab])\$ (.+)$", text, re.M)
    return lines, re.search(r"^```yaml\n(.*?)^```$", text, re.M | re.S)[1]


def ip(*args, at=None):
    done = subprocess.run([*(at.inside if at else []), "ip", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise OSError("ip %s: %s" % (" ".join(args), done.stdout.strip()))


class Namespace:
    """It lives as long as a process that sleeps in it. Not by "ip netns": that mounts, and remounts /, which a chroot
    does not have as a mount."""

    def __init__(self):
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "900"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        self.path = "/proc/%d/ns/net" % self.process.pid
        self.inside = ["nsenter", "--net=" + self.path]

        wait_for("the namespace", lambda: self.process.poll() is not None or
                 os.readlink(self.path) != os.readlink("/proc/self/ns/net"))
        if self.process.poll() is not None:
            raise OSError(self.process.stderr.read().strip())

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class Namespaces(Case):
    def setUp(self):
        super().setUp()
        self.names, self.wires = {}, 0
        for command in ("ip", "unshare", "nsenter"):
            if not shutil.which(command):
                self.give_up("the command %s is not there" % command)
        try:
            for name in "abc":
                self.names[name] = Namespace()
                ip("link", "set", "lo", "up", at=self.names[name])
                os.makedirs(self.home(name))
            self.wire("a", "10.9.0.1/24", "b", "10.9.0.2/24")
            self.wire("c", "10.9.1.3/24", "a", "10.9.1.1/24")
        except OSError as error:
            self.give_up("network namespaces cannot be made here: %s" % error)

    def give_up(self, why):
        self.tearDown()
        self.skipTest(why)

    def tearDown(self):
        for process in reversed([p for p in self.started if isinstance(p, subprocess.Popen)]):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(WAIT_S + 20)
        super().tearDown()
        for namespace in self.names.values():
            namespace.end()

    def wire(self, one, address, other, its_address):
        self.wires += 1
        ends = ["or%d%s%d" % (os.getpid() % 100000, end, self.wires) for end in "xy"]
        one_pid, other_pid = (str(self.names[name].process.pid) for name in (one, other))
        ip("link", "add", ends[0], "netns", one_pid, "type", "veth", "peer", "name", ends[1], "netns", other_pid)
        for end, name, where in ((ends[0], one, address), (ends[1], other, its_address)):
            ip("addr", "add", where, "dev", end, at=self.names[name])
            ip("link", "set", end, "up", at=self.names[name])
        return ends

    def home(self, name):
        return self.path("home-" + name)

    def on(self, name, *argv, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_", "XDG_"))}
        env.update(HOME=self.home(name), PATH=BIN + ":" + env["PATH"])
        return dict(args=[*self.names[name].inside, *argv], env=env, cwd=self.home(name), **more)

    def run_on(self, name, *argv, input="", ok=True):
        done = subprocess.run(**self.on(name, *argv), input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", timeout=100)
        if ok:
            self.assertEqual(done.returncode, 0, "%s: %s\n%s%s" % (name, argv, done.stdout, done.stderr))
        return done

    def begin(self, name, *argv, label):
        """In the background; its output is in a file."""
        with open(self.path(label + ".log"), "wb") as log:
            process = subprocess.Popen(**self.on(name, *argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def log(self, label):
        return read(self.path(label + ".log"))

    def wait_log(self, label, text, process):
        def is_there():
            if process.poll() is not None:
                raise AssertionError("%s ended with %d:\n%s" % (label, process.returncode, self.log(label)))
            return text in self.log(label)
        wait_for("%r of %s" % (text, label), is_there, timeout_s=60 * SLOW)

    def sniff(self, name, wire, label):
        process = self.begin(name, sys.executable, "-c", SNIFFER, wire, self.path(label), label=label)
        self.wait_log(label, "sniffing", process)
        return process

    def segments(self, label):
        """(source port, target port, bytes)"""
        with open(self.path(label), "rb") as file:
            text = file.read()
        at = 0
        while at < len(text):
            size = int.from_bytes(text[at + 4:at + 8], "big")
            yield int.from_bytes(text[at:at + 2], "big"), int.from_bytes(text[at + 2:at + 4], "big"), text[at + 8:at + 8 + size]
            at += 8 + size

    def wire_of(self, name, address):
        text = self.run_on(name, "ip", "-o", "addr", "show").stdout
        return re.search(r"(\S+)\s+inet %s/" % re.escape(address), text)[1]

    @tag("debug")
    def test_the_commands_of_the_readme(self):
        lines, places = commands()
        self.assertEqual([c for _, c in lines[:2]], ["outrigger mtls init", "outrigger mtls join"])
        for name in "ab":
            with open(os.path.join(self.home(name), "places.yaml"), "w") as file:
                file.write(places)
            with open(os.path.join(self.home(name), "marker-of-%s" % name), "w") as file:
                file.write("x")
        sniffers = [self.sniff("a", self.wire_of("a", "10.9.0.1"), "between"), self.sniff("a", "lo", "inside")]
        token, answers = "", []
        for name, command in lines:
            argv = command.split()
            if argv[:2] == ["outrigger", "run"]:
                label = argv[argv.index("--app-id") + 1]
                process = self.begin(name, *argv, label=label)
                self.wait_log(label, "dapr initialized. Status: Running", process)
            elif argv[0] == "curl":
                answers.append(self.run_on(name, *argv).stdout)
            else:
                shown = self.run_on(name, *argv, input=token).stdout
                token = shown if argv[-1] == "init" else token
        # a asked b's app and b asked a's: a listing of the other's folder
        self.assertIn("marker-of-b", answers[0])
        self.assertIn("marker-of-a", answers[1])
        self.look_at_the_wire(sniffers)
        self.look_at_the_chain(lines)
        self.try_plain_bytes()
        self.try_a_third_machine(lines, places)

    def look_at_the_wire(self, sniffers):
        def is_seen():  # the listing of a's folder, as it came to b; and plain, between the app and its sidecar on a
            self.plain = b"".join(b for *_, b in self.segments("inside"))
            self.between = [s for s in self.segments("between") if 50010 in s[:2]]
            return b"marker-of-a" in self.plain and sum(len(b) for *_, b in self.between) > 2000
        wait_for("what went over the wires", is_seen, timeout_s=60)
        for sniffer in sniffers:
            sniffer.send_signal(signal.SIGTERM)
            sniffer.wait(WAIT_S)
        together = b"".join(b for *_, b in self.between)
        for word in (b"marker-of", b"kitchen", b"waiter", b"/v1.0/", b"PRI * HTTP/2.0"):
            self.assertNotIn(word, together)
        streams = {}
        for source, target, body in self.between:
            streams.setdefault((source, target), []).append(body)
        for ports, bodies in streams.items():  # each begins with a handshake record of TLS
            self.assertEqual(bodies[0][:2], b"\x16\x03", ports)
        self.assertEqual([p for p in self.segments("between") if 50010 not in p[:2]], [])  # and nothing else went over it

    def look_at_the_chain(self, lines):
        shown = self.run_on("b", "openssl", "s_client", "-connect", "10.9.0.1:50010", "-alpn", "h2", "-CAfile",
                            os.path.join(self.home("b"), ".outrigger/mtls/ca.crt"), "-showcerts", ok=False)
        text = shown.stdout + shown.stderr
        self.assertIn("Verify return code: 0 (ok)", text)
        pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.S)[0]
        with open(self.path("leaf.pem"), "w") as file:
            file.write(pem)
        self.assertIn("URI:spiffe://public/ns/default/kitchen", openssl("x509", "-in", self.path("leaf.pem"), "-noout", "-text"))

    def try_plain_bytes(self):
        self.assertEqual(self.run_on("b", sys.executable, "-c", PLAIN, "10.9.0.1").stdout.strip(), "refused")

    def try_a_third_machine(self, lines, places):
        """c knows where kitchen is, and has a fleet of its own; and so has one that is of none."""
        with open(os.path.join(self.home("c"), "places.yaml"), "w") as file:
            file.write(places.replace("10.9.0.1", "10.9.1.1"))
        self.run_on("c", "outrigger", "mtls", "init")
        run = next(c for n, c in lines if n == "b" and c.startswith("outrigger run")).split()
        before = self.log("kitchen").count("GET / ")
        for label, flags, port in (("stranger", [], "3500"), ("plain", ["--enable-mtls=false"], "3501")):
            argv = [w.replace("waiter", label).replace("3500", port).replace("50010", "50011" if flags else "50010")
                    .replace("8000", "8001" if flags else "8000") for w in run]
            argv[2:2] = flags
            process = self.begin("c", *argv, label=label)
            self.wait_log(label, "dapr initialized. Status: Running", process)
            done = self.run_on("c", "curl", "-sS", "-w", " %{http_code}", "http://localhost:%s/v1.0/invoke/kitchen/method/" % port)
            self.assertTrue(done.stdout.endswith(" 500"), done.stdout)
            if not flags:
                self.assertIn("authentication handshake failed", done.stdout)
        self.assertEqual(self.log("kitchen").count("GET / "), before)
        self.assertIn("a peer was refused on the internal port", self.log("kitchen"))
