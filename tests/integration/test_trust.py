"""Connections under mutual TLS and their end: with a certificate, with the trust anchor it came by."""
import os
import threading
import time

from harness import SLOW, Client, Reply, put, tag, wait_for
from pki import Authority, Mtls, read, total


def endless(request):
    """An answer that goes on for ever, a piece at a time."""
    def pieces():
        while True:
            yield b"tick"
            time.sleep(0.05)  # the rate of the stream; the test waits for its end
    return Reply(200, pieces()) if request.path == "/endless" else Reply(200, b"short")


class Stream(threading.Thread):
    """A call of /endless; how it ended: "cut", or "clean" when it looked like a whole answer."""

    def __init__(self, caller):
        super().__init__(daemon=True)
        self.bytes, self.how, self.status = 0, None, None
        self.client = Client(caller.http, timeout_s=60 * SLOW)
        self.start()

    def run(self):
        try:
            self.client.send_request("GET", "/v1.0/invoke/callee/method/endless")
            self.status, headers, _ = self.client.read_head()
            for piece in self.client.body_pieces("GET", self.status, headers, []):
                self.bytes += len(piece)
            self.how = "clean"
        except (OSError, EOFError, ValueError):
            self.how = "cut"
        finally:
            self.client.close()


def cuts(sidecars, reason):
    return sum(total(s.metrics(), "outrigger_mtls_cut_total", 'reason="%s"' % reason) for s in sidecars)


class HardEnd(Mtls):
    def others_are_fine(self, caller, until):
        bad, count = [], 0
        with Client(caller.http) as client:
            while not count or not until():
                answer = client.call("GET", "/v1.0/invoke/callee/method/x")
                count += 1
                if answer.status != 200:
                    bad.append(answer)
                time.sleep(0.01)  # a rate, not a wait
        self.assertEqual(bad, [])

    @tag("debug", "tsan")
    def test_a_stream_without_end_ends_with_a_certificate(self):
        ca = self.authority(ttl="8s", skew="1s")
        app = self.app(endless)
        a, b = self.secure(ca, "caller"), self.secure(ca, "callee", app)
        stream = Stream(a)
        wait_for("the stream to begin", lambda: stream.bytes > 0)
        begun = stream.bytes
        self.others_are_fine(a, lambda: stream.how)
        stream.join()
        self.assertEqual((stream.status, stream.how), (200, "cut"))
        self.assertGreater(stream.bytes, begun)
        wait_for("the cut to be counted", lambda: cuts((a, b), "expired") >= 1)
        self.assertTrue(any("calls were broken off with their connection" in s.log() and "expired" in s.log() for s in (a, b)))
        self.assertEqual(cuts((a, b), "untrusted"), 0)
        self.assertEqual(a.invoke("callee", "x").status, 200)

    @tag("debug")
    def test_a_stream_without_end_ends_when_nobody_vouches_for_its_peer(self):
        ca = self.authority()
        new = Authority(self)
        Authority(self, folder=new.dir).start().stop()
        bundle = self.path("anchors.pem")
        put(bundle, ca.anchors)
        options = {"flags": ["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % ca.port],
                   "env": {"OUTRIGGER_TRUST_ANCHORS_FILE": bundle}}
        app = self.app(endless)
        a, b = self.sidecar("caller", **options), self.sidecar("callee", app, **options)
        stream = Stream(a)
        wait_for("the stream to begin", lambda: stream.bytes > 0)
        put(bundle, ca.anchors + new.anchors)  # more trust ends nothing
        for sidecar in (a, b):
            sidecar.wait_log("trust anchors have changed")
        self.assertEqual(a.invoke("callee", "x").status, 200)
        self.assertIsNone(stream.how)
        put(bundle, new.anchors)  # the authority they have is nobody now
        wait_for("the end of the stream", lambda: stream.how, timeout_s=60 * SLOW)
        self.assertEqual((stream.status, stream.how), (200, "cut"))
        wait_for("the cut to be counted", lambda: cuts((a, b), "untrusted") >= 1)
        self.assertEqual(cuts((a, b), "expired"), 0)


class Files(Mtls):
    """What the authority says of its files when they change."""

    def clock(self, ca):
        """Who looks at a file as often as the authority at its own: when it has looked twice, so has the authority."""
        bundle, anchors = self.path("anchors.pem"), ca.anchors
        put(bundle, anchors)
        a = self.sidecar("a", flags=["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % ca.port],
                         env={"OUTRIGGER_TRUST_ANCHORS_FILE": bundle})

        def another_look():
            for count in (1, 2):
                put(bundle, anchors + "\n" * count)
                a.wait_log("trust anchors have changed", count)
        return another_look

    @tag("debug")
    def test_files_that_do_not_fit_are_told_of_once(self):
        ca = self.authority()
        another_look = self.clock(ca)
        good = {name: os.path.join(ca.dir, name) for name in ("issuer.key", "issuer.crt")}
        key = read(good["issuer.key"])
        put(good["issuer.key"], "nonsense")
        wait_for("it to be told", lambda: "changed files cannot be used" in ca.log())
        another_look()
        self.assertEqual(ca.log().count("changed files cannot be used"), 1)
        put(good["issuer.key"], key)
        wait_for("them to fit again", lambda: "root and issuer have changed" in ca.log())
        put(good["issuer.crt"], "nonsense")  # another fault is told of, too
        wait_for("it to be told", lambda: ca.log().count("changed files cannot be used") == 2)

    @tag("debug")
    def test_a_change_of_all_three_is_one(self):
        ca, new = self.authority(), Authority(self)
        Authority(self, folder=new.dir).start().stop()
        another_look = self.clock(ca)
        for name in ("ca.crt", "issuer.crt", "issuer.key"):
            os.replace(os.path.join(new.dir, name), os.path.join(ca.dir, name))
        wait_for("it to be seen", lambda: "root and issuer have changed" in ca.log())
        another_look()
        self.assertEqual(ca.log().count("root and issuer have changed"), 1)
        self.assertEqual(total(ca.metrics(), "dapr_sentry_issuercert_changed_total"), 2)  # one when they were made
