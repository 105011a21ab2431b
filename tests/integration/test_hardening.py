"""What a sidecar may do: as nobody in particular, with keys that stay in its memory, and with few system calls."""
import os
import resource
import shutil
import signal
import stat
import subprocess

import test_bindings
import test_invoke
import test_lifecycle
import test_middleware
import test_mtls
import test_pubsub
import test_state
from harness import BIN, Client, component, tag, wait_for
from pki import Mtls

NOBODY = 65534


def status(pid, task=None):
    with open("/proc/%d/%sstatus" % (pid, "task/%d/" % task if task else "")) as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class Process(Mtls):
    def test_the_filter_is_on_in_every_thread(self):
        """Not with sanitizers: they start processes to look for leaks."""
        a = self.sidecar("a", self.app(), flags=["--seccomp", "kill"], resources={"s.yaml": component("s", "state.sqlite", {"connectionString": self.path("s.db")})})
        self.assertEqual(a.call_json("POST", "/v1.0/state/s", [{"key": "k", "value": 1}]).status, 204)
        tasks = [int(t) for t in os.listdir("/proc/%d/task" % a.pid)]
        self.assertGreater(len(tasks), 2)
        for task in tasks:
            told = status(a.pid, task)
            self.assertEqual((told["Seccomp"], told["NoNewPrivs"]), ("2", "1"), told["Name"])
        b = self.sidecar("b")
        self.assertEqual(status(b.pid)["Seccomp"], "0")

    @tag("debug")
    def test_an_unknown_mode_is_refused(self):
        done = subprocess.run([os.path.join(BIN, "outriggerd"), "--app-id", "a", "--seccomp", "on"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--seccomp", done.stderr)

    def test_the_authority_too(self):
        ca = self.authority(flags=["--seccomp", "kill", "--jwt-enabled"])
        app = self.app()
        a = self.secure(ca, "caller", flags=["--seccomp", "kill"])
        self.secure(ca, "callee", app, flags=["--seccomp", "deny"])
        self.assertEqual(a.invoke("callee", "x").status, 200)
        self.assertEqual(status(ca.process.pid)["Seccomp"], "2")
        self.assertEqual(ca.stop(), 0)

    def limits(self, pid):
        with open("/proc/%d/limits" % pid) as file:
            return {line[:26].strip(): line[26:].split()[:2] for line in file}

    @tag("debug")
    def test_no_core_dump_while_keys_are_loaded(self):
        before = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CORE, before)
        ca = self.authority()
        a, plain = self.secure(ca, "a"), self.sidecar("plain")
        for pid in (a.pid, ca.process.pid):
            self.assertEqual(self.limits(pid)["Max core file size"], ["0", "0"])
        self.assertNotEqual(self.limits(plain.pid)["Max core file size"][1], "0")
        a.may_end = True
        os.kill(a.pid, signal.SIGQUIT)
        _, how = os.waitpid(a.pid, 0)
        a.process.returncode = -signal.SIGKILL  # it was waited for here
        self.assertTrue(os.WIFSIGNALED(how))
        self.assertFalse(os.WCOREDUMP(how))

    def test_as_nobody_without_privileges(self):
        if os.getuid() != 0:
            self.skipTest("needs root, to become nobody")
        ca = self.authority()
        binary, home = self.path("bin"), self.path("home")  # where nobody may look
        os.chmod(self.dir, 0o755)
        shutil.copytree(BIN, binary)
        os.makedirs(home)
        os.chown(home, NOBODY, NOBODY)
        config = self.path("c.yaml")
        with open(config, "w") as file:
            file.write(component("s", "state.sqlite", {"connectionString": os.path.join(home, "s.db")}))
        os.makedirs(os.path.join(home, "resources"))
        os.replace(config, os.path.join(home, "resources", "s.yaml"))
        os.makedirs(os.path.join(home, "sockets"))
        os.chown(os.path.join(home, "sockets"), NOBODY, NOBODY)
        old = os.umask(0)  # whatever others would be allowed then, our files allow them nothing
        try:
            log = open(self.path("nobody.log"), "wb")
            process = subprocess.Popen(
                [os.path.join(binary, "outriggerd"), "--app-id", "nobody", "--resources-path", os.path.join(home, "resources"),
                 "--unix-domain-socket", os.path.join(home, "sockets"), "--metrics-port", "0", "--enable-metrics=false", "--seccomp", "kill",
                 "--dapr-listen-addresses", "127.0.0.1", *ca.flags_for()["flags"]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=NOBODY, group=NOBODY, extra_groups=[],
                env={"PATH": os.environ["PATH"], "HOME": home, "OUTRIGGER_RUN_DIR": os.path.join(home, "run"), **ca.flags_for()["env"]})
        finally:
            os.umask(old)
            log.close()
        self.started.append(process)
        socket_path = os.path.join(home, "sockets", "dapr-nobody-http.socket")

        def is_ready():
            if process.poll() is not None:
                with open(self.path("nobody.log")) as file:
                    raise AssertionError("it ended with %d:\n%s" % (process.returncode, file.read()))
            with Client(socket_path) as client:
                return client.call("GET", "/v1.0/healthz").status == 204
        wait_for("readiness", is_ready)
        with Client(socket_path) as client:
            answer = client.call("POST", "/v1.0/state/s", [("Content-Type", "application/json")], b'[{"key":"k","value":1}]')
            self.assertEqual(answer.status, 204)
        told = status(process.pid)
        self.assertEqual((told["Uid"].split()[0], told["CapEff"].strip("0"), told["CapPrm"].strip("0")), (str(NOBODY), "", ""))
        # its memory and its variables are not even its user's to read
        for name in ("mem", "environ"):
            self.assertEqual(os.stat("/proc/%d/%s" % (process.pid, name)).st_uid, 0)
        found = []
        for folder, _, names in os.walk(home):
            found += [os.path.join(folder, n) for n in names if not n.endswith(".yaml")]
        self.assertIn(os.path.join(home, "s.db"), found)
        self.assertIn(socket_path, found)
        self.assertTrue(any(stat.S_ISSOCK(os.stat(f).st_mode) for f in found))
        for path in found:
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o077, 0, path)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)


def again(base):
    """The tests of another class, with sidecars that die of what they are not allowed. In the release build alone:
    sanitizers start processes to look for leaks."""
    def untagged(name):
        return lambda self: getattr(super(made, self), name)()
    made = type(base.__name__, (base,), {"sidecar_flags": ("--seccomp", "kill"), "__module__": __name__})
    for name in dir(base):
        if name.startswith("test"):
            setattr(made, name, untagged(name))
    return made


Calls, Bodies, Events = again(test_invoke.Basics), again(test_invoke.Streaming), again(test_pubsub.PubSub)
Saved, Bound, Pipelines = again(test_state.State), again(test_bindings.Output), again(test_middleware.HttpPipeline)
Reloaded, Secured = again(test_lifecycle.Reload), again(test_mtls.Pair)
