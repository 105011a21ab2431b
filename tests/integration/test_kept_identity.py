"""--identity-file: a sidecar that starts again while the authority is away goes on as who it was."""
import os
import re
import signal
import stat
import time

from harness import SLOW, Case, tag, wait_for
from pki import Authority, read


class Kept(Case):
    def passphrase(self, text="a long passphrase\n"):
        path = self.path("passphrase")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path

    def keeping(self, ca, app_id, app=None, file=None, **more):
        options = ca.flags_for()
        file = file or self.path(app_id + ".identity")
        options["flags"] += ["--identity-file", file, "--identity-passphrase-file", self.passphrase()]
        options["env"].update(more.pop("env", {}))
        sidecar = self.sidecar(app_id, app, **options, **more)
        sidecar.kept = file
        return sidecar

    def starts(self, sidecar, text):
        """How often it has told so since its last start."""
        return sidecar.log().rpartition("starting Outrigger")[2].count(text)

    @tag("debug")
    def test_killed_and_started_while_the_authority_is_away(self):
        ca = Authority(self).start()
        a, b = self.keeping(ca, "caller"), self.keeping(ca, "callee", self.app())
        self.assertEqual(a.invoke("callee", "x").status, 200)
        for sidecar in (a, b):
            self.assertEqual(stat.S_IMODE(os.stat(sidecar.kept).st_mode), 0o600)
        ca.kill()
        for sidecar in (a, b):
            sidecar.kill()  # SIGKILL: nothing is written at the end
            sidecar.start()
            self.assertEqual(self.starts(sidecar, "the identity of an earlier start goes on"), 1)
            self.assertEqual(self.starts(sidecar, "fetching initial identity"), 0)
        self.assertEqual(a.invoke("callee", "x").status, 200)

    @tag("debug")
    def test_the_newest_one_is_kept(self):
        ca = Authority(self, ttl="6s", skew="1m").start()
        a = self.keeping(ca, "caller")
        before = read_bytes(a.kept)
        for _ in range(2):
            wait_for("a newer one", lambda: read_bytes(a.kept) != before, timeout_s=60 * SLOW)
            before = read_bytes(a.kept)
        a.kill()
        a.start()  # on it or, on a slow machine, on a new one: it goes on being renewed
        a.wait_log("identity renewed", 3, timeout_s=60 * SLOW)

    @tag("debug")
    def test_without_the_flag_nothing_is_on_the_disk(self):
        ca = Authority(self).start()
        a = self.sidecar("caller", **ca.flags_for())
        ca.kill()
        a.kill()
        a.start(ready=False)
        a.wait_log("cannot be reached yet")
        self.assertEqual(a.stop(), 0)
        key = re.compile(b"PRIVATE KEY|outrigger sealed")
        for folder, _, names in os.walk(a.dir):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    self.assertIsNone(key.search(file.read()), name)

    @tag("debug")
    def test_what_is_kept_but_of_no_use_is_told_and_asked_anew(self):
        ca, other = Authority(self).start(), Authority(self).start()
        b = self.keeping(ca, "callee", self.app())
        a = self.keeping(ca, "caller")
        foreign = self.keeping(other, "caller2", file=self.path("foreign"))
        theirs = read_bytes(foreign.kept)
        good = read_bytes(a.kept)

        def corrupt():
            write_bytes(a.kept, good[:100] + bytes([good[100] ^ 1]) + good[101:])

        def empty():
            write_bytes(a.kept, b"")

        def of_another_app():
            write_bytes(a.kept, read_bytes(b.kept))

        def of_another_root():
            write_bytes(a.kept, theirs)

        def readable():
            os.chmod(a.kept, 0o644)

        def of_another_passphrase():
            self.passphrase("another passphrase")
            a.flags[-1] = self.path("passphrase")

        for what, said in ((corrupt, "damaged, or sealed by another passphrase"), (empty, "no sealed text"),
                           (of_another_app, "it is that of spiffe://public/ns/default/callee"),
                           (of_another_root, "it is that of spiffe://public/ns/default/caller2"),
                           (readable, "others may use it (mode 0644"),
                           (of_another_passphrase, "sealed by another passphrase")):
            a.kill()
            what()
            a.start()
            last = a.log().rpartition("starting Outrigger")[2]
            self.assertIn("the kept identity is not used", last, what.__name__)
            self.assertIn(said, last)
            self.assertIn("fetching initial identity", last)
            self.assertEqual(a.invoke("callee", "x").status, 200)
            a.kill()
            a.start()  # a good one has taken its place
            self.assertEqual(self.starts(a, "the identity of an earlier start goes on"), 1, what.__name__)
            self.assertEqual(stat.S_IMODE(os.stat(a.kept).st_mode), 0o600)

    @tag("debug")
    def test_of_an_authority_that_is_no_longer_trusted(self):
        ca, other = Authority(self).start(), Authority(self).start()
        a = self.keeping(ca, "caller")
        a.kill()
        options = other.flags_for()
        a.flags[1:3], a.env = options["flags"][1:3], options["env"]
        a.start()
        self.assertEqual(self.starts(a, "the kept identity is not used"), 1)
        self.assertIn("app=caller", other.log())

    @tag("debug")
    def test_one_that_has_expired_waits_for_the_authority(self):
        ca = Authority(self, ttl="5s", skew="1s").start()
        a = self.keeping(ca, "caller")
        a.kill()
        ca.kill()
        ends = os.stat(a.kept).st_mtime + 6
        wait_for("its end", lambda: time.time() > ends, timeout_s=30)
        a.start(ready=False)
        a.wait_log("it has expired")
        a.wait_log("cannot be reached yet", timeout_s=30 * SLOW)
        ca.start()
        a.wait_ready()

    @tag("debug")
    def test_what_is_missing_or_in_the_way_is_told(self):
        ca = Authority(self).start()

        def refused(said, flags):
            options = ca.flags_for()
            options["flags"] += flags
            sidecar = self.sidecar("a", is_ready=False, **options)
            self.assertEqual(sidecar.wait_exit(), 1)
            self.assertIn(said, sidecar.log())
            sidecar.may_end = True
        refused("--identity-file needs --identity-passphrase-file", ["--identity-file", self.path("x")])
        refused("--identity-passphrase-file: %s: No such file" % self.path("nowhere"),
                ["--identity-file", self.path("x"), "--identity-passphrase-file", self.path("nowhere")])
        os.chmod(self.passphrase(), 0o644)
        refused("others may use it", ["--identity-file", self.path("x"), "--identity-passphrase-file", self.path("passphrase")])
        self.sidecar("plain", flags=["--identity-file", self.path("x")]).wait_log("is of no use without --enable-mtls")
        os.unlink(self.path("passphrase"))
        with open(self.path("important"), "w") as file:
            file.write("important")
        a = self.keeping(ca, "caller", file=self.path("important"))
        a.wait_log("which is not written over")
        self.assertEqual(read(self.path("important")), "important")
        a.signal(signal.SIGHUP)
        a.wait_log("dapr initialized", 2)
        self.assertEqual(read(self.path("important")), "important")


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def write_bytes(path, data):
    with open(path, "wb") as file:
        file.write(data)
