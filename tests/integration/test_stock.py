"""A stock sentry 1.18 on the files of a fleet. It is found on PATH, or where STOCK_SENTRY says; Go makes it of
github.com/dapr/dapr/cmd/sentry v1.18.3, which takes too long to be done here."""
import os
import shutil
import subprocess

from harness import SLOW, Port, call, wait_for
from pki import read
from test_fleet import Fleet

SENTRY = os.environ.get("STOCK_SENTRY") or shutil.which("sentry")


class Stock(Fleet):
    def start_stock(self, name, program, argv, env, is_ready):
        env = {**{k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "OUTRIGGER_"))}, "NAMESPACE": "default", **env}
        with open(self.path(name + ".log"), "wb") as log:
            process = subprocess.Popen([program, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.dir)
        self.started.append(process)

        def is_up():
            if process.poll() is not None:
                raise AssertionError("%s ended with %d:\n%s" % (name, process.returncode, read(self.path(name + ".log"))))
            return is_ready()
        wait_for("readiness of " + name, is_up, timeout_s=60 * SLOW)

    def ports(self, *names):
        ports = {name: Port() for name in names}
        for port in ports.values():
            port.release()
        return {name: port.number for name, port in ports.items()}

    def sentry(self, machine):
        """On the files of the machine where the fleet began; its port."""
        if not SENTRY:
            self.skipTest("a stock sentry is not there")
        ports = self.ports("sign", "health", "metrics")
        config = self.path("sentry.yaml")
        with open(config, "w") as file:
            file.write("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  mtls: {enabled: true}\n")
        self.start_stock("sentry", SENTRY, ["--mode", "standalone", "--issuer-credentials", machine.dir, "--trust-domain", "localhost",
                                            "--config", config, "--listen-address", "127.0.0.1", "--port", str(ports["sign"]),
                                            "--healthz-port", str(ports["health"]), "--metrics-port", str(ports["metrics"])], {},
                         lambda: call(ports["health"], "GET", "/healthz").status == 200)
        return ports["sign"]

    def asked(self, machine, port):
        """What whoever asks that sentry is started with."""
        return {"flags": ["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % port],
                "env": {"DAPR_TRUST_ANCHORS": read(machine.path("ca.crt"))}}

    def test_a_stock_sentry_runs_on_a_fleets_files(self):
        a, b = self.two()
        one = self.sidecar("one", self.app(), **self.asked(a, self.sentry(a)))
        two = self.member(b, "two", self.app())
        self.assertEqual([one.invoke("two", "x").status, two.invoke("one", "x").status], [200, 200])

    def test_a_stock_sentry_takes_a_bundle_of_two_roots(self):
        a, b = self.two()
        bundle = a.run("renew", "root").stdout
        b.run("trust", "-", input=bundle)
        a.run("renew", "issuer")
        one = self.sidecar("one", self.app(), **self.asked(a, self.sentry(a)))
        two = self.member(b, "two", self.app())  # of the old root still
        self.assertEqual([one.invoke("two", "x").status, two.invoke("one", "x").status], [200, 200])
