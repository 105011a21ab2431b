"""Certificates for tests by the openssl command, and outrigger-control ca as a process.

An Authority's root and issuer are those of a running `outrigger-control ca`, or made here: either way the test
holds the issuer's key and may sign whatever a stranger might show."""
import os
import re
import signal
import ssl
import subprocess
import time

from harness import BIN, WAIT_S, Case, Port, call, wait_for

# openssl's own way to a certificate with a life in seconds
CA_CONFIG = """[ca]
default_ca = here
[here]
database = %(dir)s/index.txt
new_certs_dir = %(dir)s
rand_serial = yes
default_md = default
policy = any
unique_subject = no
[any]
organizationName = optional
"""


def openssl(*args):
    done = subprocess.run(("openssl",) + args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssertionError("openssl %s: %s" % (" ".join(args), done.stdout))
    return done.stdout


def read(path):
    with open(path) as file:
        return file.read()


def uri_der(*uris):
    """A subjectAltName extension's value with these bytes as URIs, whatever they are."""
    names = b"".join(b"\x86" + bytes([len(u)]) + u for u in uris)
    return "DER:" + ":".join("%02x" % b for b in b"\x30" + bytes([len(names)]) + names)


class Pki:
    """A folder with ca.crt, issuer.crt, issuer.key. made: by whom else; else they are made here."""

    def __init__(self, folder, made=False):
        self.dir, self.count = folder, 0
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if made:
            return
        root_key = self.path("root.key")
        openssl("genpkey", "-algorithm", "ed25519", "-out", root_key)
        openssl("req", "-new", "-x509", "-key", root_key, "-subj", "/O=localhost", "-days", "30", "-out", self.path("ca.crt"),
                "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.path("issuer.key"))
        self.sign("issuer", self.path("issuer.key"), "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n",
                  self.path("ca.crt"), root_key, subject="/O=issuer")

    def path(self, name):
        return os.path.join(self.dir, name)

    @property
    def anchors(self):
        return read(self.path("ca.crt"))

    def sign(self, name, key, extensions, issuer, issuer_key, subject="/", days="20", life=None):
        """life: (from, to) in seconds from now, instead of days."""
        request, extfile, out = self.path(name + ".csr"), self.path(name + ".ext"), self.path(name + ".crt")
        with open(extfile, "w") as file:
            file.write(extensions)
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
        if not life:
            openssl("x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer_key, "-CAcreateserial", "-days", days,
                    "-extfile", extfile, "-out", out)
            return out
        config = self.path("openssl.cnf")
        with open(config, "w") as file:
            file.write(CA_CONFIG % {"dir": self.dir})
        with open(self.path("index.txt"), "a"):
            pass
        start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + s)) for s in life)
        openssl("ca", "-batch", "-notext", "-config", config, "-cert", issuer, "-keyfile", issuer_key, "-in", request,
                "-startdate", start, "-enddate", end, "-extfile", extfile, "-out", out)
        return out

    def self_signed(self, san, subject="/O=me"):
        self.count += 1
        key, out = self.path("self%d.key" % self.count), self.path("self%d.crt" % self.count)
        openssl("genpkey", "-algorithm", "ed25519", "-out", key)
        openssl("req", "-new", "-x509", "-key", key, "-subj", subject, "-days", "9", "-out", out,
                "-addext", "subjectAltName=" + san, "-addext", "basicConstraints=critical,CA:FALSE")
        return out, key

    def leaf(self, san, days="10", with_issuer=True, usage="serverAuth,clientAuth", life=None):
        """(chain file, key file) of a workload with these names."""
        self.count += 1
        name = "leaf%d" % self.count
        key = self.path(name + ".key")
        openssl("genpkey", "-algorithm", "ed25519", "-out", key)
        extensions = "keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n" % usage
        if san:
            extensions += "subjectAltName=critical,%s\n" % san
        leaf = self.sign(name, key, extensions, self.path("issuer.crt"), self.path("issuer.key"), days=days,
                         life=life)
        chain = self.path(name + ".pem")
        with open(chain, "w") as file:
            file.write(read(leaf) + (read(self.path("issuer.crt")) if with_issuer else ""))
        return chain, key


def client_context(identity=None, alpn=("h2",)):
    """Takes any server; what the server thinks is the question."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity:
        context.load_cert_chain(*identity)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def server_context(identity, anchors=None, alpn=("h2",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*identity)
    if anchors:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=anchors)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Authority:
    """outrigger-control ca. ttl and skew as in Configuration; mtls: more lines of its spec.mtls."""

    def __init__(self, case, ttl=None, skew=None, flags=(), env=None, folder=None, mtls=""):
        self.case, self.flags, self.env = case, list(flags), dict(env or {})
        self.dir = folder or case.path("ca%d" % len(case.started))
        self.ports = {name: Port() for name in ("sign", "health", "metrics")}
        self.process, self.log_path = None, self.dir + ".log"
        self.config = self.dir + ".yaml"
        settings = "".join("    %s: %s\n" % pair for pair in (("workloadCertTTL", ttl), ("allowedClockSkew", skew)) if pair[1])
        with open(self.config, "w") as file:
            file.write("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  mtls:\n    enabled: true\n"
                       + settings + mtls)

    @property
    def port(self):
        return self.ports["sign"].number

    @property
    def pki(self):
        return Pki(self.dir, made=True)

    @property
    def anchors(self):
        return self.pki.anchors

    def argv(self):
        return [os.path.join(BIN, "outrigger-control"), "ca", "--issuer-credentials", self.dir, "--config", self.config,
                "--listen-address", "127.0.0.1", "--healthz-listen-address", "127.0.0.1", "--metrics-listen-address", "127.0.0.1",
                "--port", str(self.port), "--healthz-port", str(self.ports["health"].number),
                "--metrics-port", str(self.ports["metrics"].number)] + self.flags

    def launch(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "OUTRIGGER_")) and k != "NAMESPACE"}
        env.update(self.env)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.case.started.append(self.process)
        return self

    def start(self):
        self.launch()

        def is_ready():
            if self.process.poll() is not None:
                raise AssertionError("the authority ended with %d:\n%s" % (self.process.returncode, self.log()))
            return self.health() == 200
        wait_for("readiness of the authority", is_ready)
        return self

    def health(self):
        return call(self.ports["health"].number, "GET", "/healthz").status

    def metrics(self):
        return call(self.ports["metrics"].number, "GET", "/metrics").body.decode()

    def log(self):
        return read(self.log_path)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def flags_for(self):
        """What a sidecar needs, as keyword arguments of Case.sidecar."""
        return {"flags": ["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % self.port],
                "env": {"DAPR_TRUST_ANCHORS": self.anchors}}


def labels(metrics, name):
    """{labels of a series: value}"""
    return {m[1]: float(m[2]) for m in re.finditer(r"^%s\{([^}]*)\} (\S+)$" % name, metrics, re.M)}


def total(metrics, name, *parts):
    return sum(v for k, v in labels(metrics, name).items() if all(p in k for p in parts))


class Mtls(Case):
    def authority(self, **more):
        return Authority(self, **more).start()

    def secure(self, authority, app_id, app=None, **more):
        options = authority.flags_for()
        options["flags"] = options["flags"] + list(more.pop("flags", ()))
        options["env"].update(more.pop("env", {}))
        return self.sidecar(app_id, app, **options, **more)
