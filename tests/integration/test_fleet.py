"""A fleet without an authority process: `outrigger mtls`, and sidecars that sign for themselves."""
import base64
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import threading
import time

from harness import BIN, SLOW, WAIT_S, Case, Client, tag, wait_for
from pki import Authority, Pki, openssl, read

OUTRIGGER = os.path.join(BIN, "outrigger")


class Machine:
    """One machine's folder, and `outrigger mtls` there."""

    def __init__(self, case, name):
        self.case, self.name, self.dir = case, name, case.path(name)

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, *args, input=None, ok=True):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_"))}
        done = subprocess.run([OUTRIGGER, "mtls", *args], input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**env, "OUTRIGGER_MTLS_DIR": self.dir}, timeout=WAIT_S + 20, cwd=self.case.dir)
        if ok and done.returncode:
            raise AssertionError("%s: mtls %s: %s" % (self.name, " ".join(args), done.stderr))
        return done

    def init(self, *flags):
        """The token."""
        return self.run("init", *flags).stdout.strip()

    def join(self, token, *flags, ok=True):
        return self.run("join", *flags, input=token + "\n", ok=ok)

    def options(self):
        return {"flags": ["--enable-mtls"], "env": {"OUTRIGGER_MTLS_DIR": self.dir}}


class Fleet(Case):
    def two(self):
        a, b = Machine(self, "a"), Machine(self, "b")
        b.join(a.init())
        return a, b

    def member(self, machine, app_id, app=None, ttl=None, **more):
        options = machine.options()
        options["env"].update(more.pop("env", {}))
        if ttl:
            more["config"] = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  mtls:\n"
                              "    workloadCertTTL: %s\n    allowedClockSkew: 1m\n" % ttl)
        return self.sidecar(app_id, app, **options, **more)

    def shown(self, sidecar, machine, chain=True):
        """What a client of the fleet sees on the internal port, by openssl."""
        pki = Pki(machine.dir, made=True)
        chain_file, key = pki.leaf("URI:spiffe://public/ns/default/looker")
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % sidecar.internal, "-alpn", "h2", "-cert", chain_file,
                               "-cert_chain", chain_file, "-key", key, "-CAfile", machine.path("ca.crt"), "-showcerts"], input="",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=WAIT_S + 20)
        return done.stdout


class Members(Fleet):
    @tag("debug", "tsan")
    def test_two_machines_call_each_other_and_a_third_one_nobody(self):
        a, b = self.two()
        apps = [self.app(), self.app()]
        one, two = self.member(a, "one", apps[0]), self.member(b, "two", apps[1])
        for _ in range(3):
            self.assertEqual(one.invoke("two", "x").status, 200)
            self.assertEqual(two.invoke("one", "x").status, 200)
        self.assertIn("signing initial identity", one.log())
        shown = self.shown(two, a)
        self.assertIn("Verify return code: 0 (ok)", shown)
        self.assertRegex(shown, r"s:O = machine [0-9a-f]{8}")
        stranger = Machine(self, "c")
        stranger.init()
        three = self.member(stranger, "three")
        for target in ("one", "two"):
            answer = three.invoke(target, "x")
            self.assertEqual(answer.status, 500)
            self.assertIn("authentication handshake failed", answer.json["message"])
        self.assertEqual([len(app.requests) for app in apps], [3, 3])

    @tag("debug")
    def test_a_certificate_is_as_sentry_would_give_it(self):
        a, b = self.two()
        two = self.member(b, "two")
        pem = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", self.shown(two, a), re.S)
        self.assertEqual(len(pem), 2)
        with open(self.path("leaf"), "w") as file:
            file.write(pem[0])
        text = openssl("x509", "-in", self.path("leaf"), "-noout", "-text")
        self.assertIn("URI:spiffe://public/ns/default/two\n", text)
        self.assertIn("Subject: \n", text)
        self.assertIn("X509v3 Key Usage: critical\n                Digital Signature\n", text)
        self.assertIn("TLS Web Server Authentication, TLS Web Client Authentication", text)
        self.assertIn("ED25519", text)
        self.assertNotIn("Basic Constraints", text)
        self.assertIn("OK", openssl("verify", "-CAfile", a.path("ca.crt"), "-untrusted", b.path("issuer.crt"), self.path("leaf")))

    @tag("debug")
    def test_an_authority_runs_on_the_same_files(self):
        a, b = self.two()
        app = self.app()
        ca = Authority(self, folder=a.dir).start()
        asked = self.sidecar("asked", **ca.flags_for())
        self.member(b, "two", app)
        self.assertEqual(asked.invoke("two", "x").status, 200)
        self.assertIn("app=asked", ca.log())

    def test_go_finds_the_chain_good(self):
        """crypto/x509 judges as a stock daprd's does."""
        if not shutil.which("go"):
            self.skipTest("go is not there")
        a, b = self.two()
        pki = Pki(b.dir, made=True)
        leaf, _ = pki.leaf("URI:spiffe://public/ns/default/x")
        other, _ = pki.leaf("URI:spiffe://localhost/ns/default/dapr-sentry")
        with open(self.path("judge.go"), "w") as file:
            file.write("""package main
import ("crypto/x509"; "encoding/pem"; "fmt"; "os")
func main() {
    roots, others := x509.NewCertPool(), x509.NewCertPool()
    text, _ := os.ReadFile(os.Args[1])
    roots.AppendCertsFromPEM(text)
    for _, name := range os.Args[2:] {
        text, _ = os.ReadFile(name)
        block, rest := pem.Decode(text)
        leaf, err := x509.ParseCertificate(block.Bytes)
        others.AppendCertsFromPEM(rest)
        if err == nil {
            _, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
        }
        fmt.Println(err)
    }
}
""")
        done = subprocess.run(["go", "run", self.path("judge.go"), a.path("ca.crt"), leaf, other], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"})
        good, bad = done.stdout.splitlines()[-2:]
        self.assertEqual(good, "<nil>", done.stdout)
        self.assertIn("not permitted", bad)  # a member machine signs for apps alone

    @tag("debug")
    def test_outrigger_run_speaks_it_unless_told_otherwise(self):
        a, b = self.two()
        two = self.member(b, "two", self.app())
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_"))}
        env.update(OUTRIGGER_RUN_DIR=self.run_dir, OUTRIGGER_MTLS_DIR=a.dir)
        ask = "import os, urllib.request as u; print('got', u.urlopen(os.environ['DAPR_HTTP_ENDPOINT'] + '/v1.0/invoke/two/method/x').status)"

        def run(*flags):
            return subprocess.run([OUTRIGGER, "run", "--app-id", "one", *flags, "--", sys.executable, "-c", ask], env=env,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
        done = run()
        self.assertIn("got 200", done.stdout)
        self.assertIn("signing initial identity", done.stdout)
        done = run("--enable-mtls=false")
        self.assertIn("HTTP Error 500", done.stdout)
        self.assertNotIn("signing initial identity", done.stdout)
        self.assertRegex(two.metrics(), r"outrigger_mtls_issuer_expires_seconds\S* \d")

    @tag("debug")
    def test_what_is_wrong_with_a_machine_is_told_at_the_start(self):
        def refused(text, machine):
            sidecar = self.member(machine, "s", is_ready=False)
            self.assertEqual(sidecar.wait_exit(), 1)
            self.assertIn(text, sidecar.log())
        nobody = Machine(self, "nobody")
        refused("needs --sentry-address, or a machine that is a member of a fleet", nobody)
        a, b = self.two()
        os.chmod(a.path("issuer.key"), 0o640)
        refused("issuer.key: others may use it", a)
        os.chmod(a.path("issuer.key"), 0o600)
        shutil.copy(b.path("issuer.key"), a.path("issuer.key"))
        refused("is not the key of", a)
        old = Machine(self, "old")
        pki = Pki(old.dir)
        pki.sign("issuer", pki.path("issuer.key"), "basicConstraints=critical,CA:TRUE\n", pki.path("ca.crt"), pki.path("root.key"),
                 subject="/O=issuer", days="-1")
        os.chmod(pki.path("issuer.key"), 0o600)
        refused("certificate has expired", old)
        self.assertEqual(old.run("expiry", ok=False).returncode, 1)
        old.run("renew", "issuer")
        self.member(old, "again")


class Tokens(Fleet):
    @tag("debug")
    def test_files_are_the_owners_alone(self):
        a, b = self.two()
        for machine, names in ((a, ("ca.crt", "issuer.crt", "issuer.key", "root.key")), (b, ("ca.crt", "issuer.crt", "issuer.key"))):
            self.assertEqual(sorted(os.listdir(machine.dir)), sorted(names))
            self.assertEqual(stat.S_IMODE(os.stat(machine.dir).st_mode), 0o700)
            for name in names:
                self.assertEqual(stat.S_IMODE(os.stat(machine.path(name)).st_mode), 0o600, name)

    @tag("debug")
    def test_a_token_is_taken_from_argv_and_standard_input(self):
        a = Machine(self, "a")
        token = a.init("--name", "kitchen")
        self.assertRegex(token, r"^outrigger-join-1\.\d+\.[A-Za-z0-9+/=]+$")
        for n, how in enumerate(("word", "dash", "input")):
            m = Machine(self, "m%d" % n)
            if how == "word":
                m.run("join", token)
            else:
                m.run("join", *(["-"] if how == "dash" else []), input=token + "\n")
            self.assertIn("machine kitchen", m.run("expiry").stdout)
            self.assertIn("OK", openssl("verify", "-CAfile", a.path("ca.crt"), m.path("issuer.crt")))

    def at_a_terminal(self, machine, typed):
        """Exit code and what the terminal shows."""
        env = {**os.environ, "OUTRIGGER_MTLS_DIR": machine.dir}
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(OUTRIGGER, [OUTRIGGER, "mtls", "join"], env)
        shown = b""
        try:
            while b"Join token: " not in shown:
                shown += os.read(terminal, 1000)
            os.write(terminal, typed)
            while piece := os.read(terminal, 1000):
                shown += piece
        except OSError:  # how a terminal ends
            pass
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown

    @tag("debug")
    def test_a_terminal_is_asked_for_a_token_and_does_not_show_it(self):
        a, b, c = (Machine(self, name) for name in "abc")
        token = a.init()
        code, shown = self.at_a_terminal(b, token.encode() + b"\n")
        self.assertEqual(code, 0, shown)
        self.assertNotIn(token[-40:].encode(), shown)
        self.assertTrue(os.path.exists(b.path("issuer.key")))
        code, shown = self.at_a_terminal(c, b"\x03")
        self.assertEqual((code, shown.splitlines()[-1]), (1, b"outrigger mtls: interrupted"))

    @tag("debug")
    def test_of_no_fleet(self):
        nobody = Machine(self, "nobody")
        for args in (["token"], ["renew", "leaf"], ["renew", "root"], ["expiry"], ["export"], ["trust", "x"]):
            done = nobody.run(*args, ok=False)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn("x: No such file" if args[0] == "trust" else "of no fleet", done.stderr)
        for args in ([], ["renew"], ["renew", "all"], ["trust"], ["leave"], ["init", "--valid-for", "0"]):
            self.assertEqual(nobody.run(*args, ok=False).returncode, 2, args)
        self.assertFalse(os.path.exists(nobody.dir))

    @tag("debug")
    def test_a_token_that_is_none_changes_nothing(self):
        a, b = Machine(self, "a"), Machine(self, "b")
        token = a.init()
        head, _, body = token.rpartition(".")
        number = int(head.rpartition(".")[2])
        rows = [("", "nothing on standard input"), ("hello", "no join token"), (token.replace("join-1", "join-2"), "another version"),
                (token[:-200], "damaged"), (head + "." + body[:300] + "AAAA" + body[304:], "damaged"),
                (token.replace(str(number), str(int(time.time()) - 1)), "time of this join token is over"), (token.replace(str(number), "x"), "damaged")]
        for text, said in rows:
            done = b.run("join", input=text, ok=False)
            self.assertEqual(done.returncode, 1, text)
            self.assertIn(said, done.stderr)
            self.assertNotIn("PRIVATE", done.stderr)
            self.assertFalse(os.path.exists(b.path("issuer.key")))
        # every letter of it counts
        for at in range(len(token) - len(body), len(token), 97):
            broken = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1:]
            self.assertEqual(b.run("join", input=broken, ok=False).returncode, 1, at)

    @tag("debug")
    def test_a_key_that_never_leaves_its_machine(self):
        a, b, other = (Machine(self, name) for name in ("a", "b", "other"))
        a.init()
        request = b.run("ask").stdout.strip()
        self.assertRegex(request, r"^outrigger-ask-1\.[A-Za-z0-9+/=]+$")
        answer = a.run("admit", "--name", "kitchen", input=request).stdout.strip()
        for line in (request, answer):
            self.assertNotIn(b"PRIVATE", base64.b64decode(line.rpartition(".")[2]))
        # of use to nobody else, and to no other request
        self.assertIn("issuer.next.key", other.join(answer, ok=False).stderr)
        other.run("ask")
        self.assertIn("not that of its issuer", other.join(answer, ok=False).stderr)
        self.assertFalse(os.path.exists(other.path("issuer.key")))
        self.assertEqual(b.run("ask").returncode, 0)  # asking again does not spoil it
        b.join(answer)
        self.assertEqual(sorted(os.listdir(b.dir)), ["ca.crt", "issuer.crt", "issuer.key"])
        self.assertIn("machine kitchen", b.run("expiry").stdout)
        one, two = self.member(a, "one"), self.member(b, "two", self.app())
        self.assertEqual(one.invoke("two", "x").status, 200)
        # and so an issuer that ends is renewed
        b.join(a.run("admit", b.run("ask").stdout.strip()).stdout.strip())
        two.wait_log("identity renewed", timeout_s=30 * SLOW)
        self.assertEqual(one.invoke("two", "x").status, 200)

    @tag("debug")
    def test_a_request_that_is_none_is_not_answered(self):
        a, b = self.two()
        request = b.run("ask").stdout.strip()
        body = request.partition(".")[2]
        pem = base64.b64decode(body)
        twisted = base64.b64encode(pem.replace(pem[100:104], bytes(pem[100:104][::-1]))).decode()
        for text, said in (("", "nothing on standard input"), ("hello", "no request"), (request[:-40], ""), ("outrigger-ask-1.!", "damaged"),
                           ("outrigger-ask-1." + twisted, "")):
            done = a.run("admit", input=text, ok=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""), text)
            self.assertIn(said, done.stderr)
        self.assertIn("where the fleet began", b.run("admit", request, ok=False).stderr)

    @tag("debug")
    def test_an_authority_of_a_joined_machine_does_not_start(self):
        _, b = self.two()
        ca = Authority(self, folder=b.dir).launch()
        self.assertEqual(ca.process.wait(WAIT_S), 1)
        self.assertIn("may not sign for an authority", ca.log())

    @tag("debug")
    def test_a_member_leaves_its_fleet_only_by_force(self):
        a, b = self.two()
        other = Machine(self, "other")
        foreign = other.init()
        before = read(b.path("issuer.crt"))
        done = b.join(foreign, ok=False)
        self.assertIn("of another fleet", done.stderr)
        self.assertEqual(read(b.path("issuer.crt")), before)
        self.assertIn("would lose its root", a.join(foreign, ok=False).stderr)
        self.assertIn("of a fleet already", a.run("init", ok=False).stderr)
        self.assertIn("where the fleet began", b.run("token", ok=False).stderr)
        b.join(a.run("token").stdout)  # of the same one: another issuer
        self.assertNotEqual(read(b.path("issuer.crt")), before)
        b.join(foreign, "--force")
        self.assertEqual(read(b.path("ca.crt")), read(other.path("ca.crt")))

    @tag("debug")
    def test_an_init_that_was_broken_off_begins_again(self):
        a, b = Machine(self, "a"), Machine(self, "b")
        a.init()
        os.unlink(a.path("issuer.key"))
        b.join(a.init())
        self.assertIn("OK", openssl("verify", "-CAfile", a.path("ca.crt"), b.path("issuer.crt")))

    @tag("debug")
    def test_what_ends_when_and_the_files_for_others(self):
        a, b = Machine(self, "a"), Machine(self, "b")
        b.join(a.init("--valid-for", "30"))
        told = json.loads(b.run("expiry", "-o", "json").stdout)
        self.assertEqual([c["what"] for c in told], ["root", "issuer"])
        self.assertTrue(29 * 86400 < told[1]["secondsLeft"] <= 30 * 86400, told)
        b.run("export", "--out", self.path("out"))
        for name in ("ca.crt", "issuer.crt", "issuer.key"):
            self.assertEqual(read(os.path.join(self.path("out"), name)), read(b.path(name)))
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.path("out"), name)).st_mode), 0o600)
        self.assertEqual(b.run("export", "--out", self.path("out"), ok=False).returncode, 1)  # over nothing
        self.assertEqual(b.run("export", "--bundle").stdout, read(a.path("ca.crt")))
        shell = subprocess.run(["sh", "-c", b.run("export", "--env").stdout + 'printf "%s" "$DAPR_TRUST_ANCHORS"'],
                               stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual(shell.strip(), read(a.path("ca.crt")).strip())


class Renewal(Fleet):
    def load(self, caller, target, is_over):
        bad, count = [], 0
        with Client(caller.http) as client:
            while not is_over.is_set():
                answer = client.call("GET", "/v1.0/invoke/%s/method/x" % target)
                count += 1
                if answer.status != 200:
                    bad.append(answer)
                time.sleep(0.01)  # a rate, not a wait
        return count, bad

    def renewed(self, sidecar, before):
        sidecar.wait_log("identity renewed", before + 1, timeout_s=30 * SLOW)

    @tag("debug")
    def test_leaf_issuer_and_root_change_under_load(self):
        a, b = self.two()
        one, two = self.member(a, "one", self.app()), self.member(b, "two", self.app())
        is_over, results = threading.Event(), {}
        threads = [threading.Thread(target=lambda c=c, t=t: results.update({t: self.load(c, t, is_over)}))
                   for c, t in ((one, "two"), (two, "one"))]
        for thread in threads:
            thread.start()

        def after(sidecar, change):
            before = sidecar.log().count("identity renewed")
            change()
            self.renewed(sidecar, before)
        after(one, lambda: a.run("renew", "leaf"))
        after(one, lambda: a.run("renew", "issuer"))
        after(two, lambda: b.join(a.run("token").stdout))
        old = read(a.path("ca.crt"))
        bundle = a.run("renew", "root").stdout
        self.assertTrue(bundle.startswith(old))
        self.assertEqual(bundle.count("BEGIN CERTIFICATE"), 2)
        self.assertEqual(a.run("renew", "root").stdout, bundle)  # no third one
        self.assertIn("signs nothing yet", a.run("renew", "root", "--finish", ok=False).stderr)
        one.wait_log("trust anchors have changed", timeout_s=30 * SLOW)
        b.run("trust", "-", input=bundle)
        two.wait_log("trust anchors have changed", timeout_s=30 * SLOW)
        after(one, lambda: a.run("renew", "issuer"))  # by the new root from here on
        after(two, lambda: b.join(a.run("token").stdout))
        final = a.run("renew", "root", "--finish").stdout
        self.assertEqual(final.count("BEGIN CERTIFICATE"), 1)
        self.assertNotEqual(final, old)
        b.run("trust", "-", input=final)
        for sidecar in (one, two):
            sidecar.wait_log("trust anchors have changed", count=2, timeout_s=30 * SLOW)
        self.assertEqual(one.invoke("two", "x").status, 200)
        is_over.set()
        for thread in threads:
            thread.join()
        for target, (count, bad) in results.items():
            self.assertGreater(count, 0)
            self.assertEqual(bad, [], target)
        self.assertIn("do not cover", b.run("trust", "-", input=old, ok=False).stderr)
        self.assertEqual(sorted(os.listdir(a.dir)), ["ca.crt", "issuer.crt", "issuer.key", "root.key"])

    @tag("debug")
    def test_sidecars_renew_by_themselves(self):
        a, b = self.two()
        one, two = self.member(a, "one", ttl="6s"), self.member(b, "two", self.app(), ttl="6s")
        for sidecar in (one, two):
            sidecar.wait_log("identity renewed", 3, timeout_s=60 * SLOW)
        self.assertEqual(one.invoke("two", "x").status, 200)

    @tag("debug")
    def test_an_issuer_that_is_gone_hurts_nobody_before_the_end(self):
        a, b = self.two()
        one, two = self.member(a, "one", ttl="8s"), self.member(b, "two", self.app())
        os.rename(a.path("issuer.key"), a.path("hidden"))
        one.wait_log("cannot be renewed", timeout_s=30 * SLOW)
        wait_for("the end of the certificate", lambda: one.invoke("two", "x").status == 500, timeout_s=60 * SLOW)
        os.rename(a.path("hidden"), a.path("issuer.key"))
        a.run("renew", "leaf")  # no waiting for the next try
        wait_for("a new certificate", lambda: one.invoke("two", "x").status == 200, timeout_s=60 * SLOW)
        self.assertEqual(two.health(), 204)
