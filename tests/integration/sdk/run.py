"""Official Dapr SDKs, unmodified, against this tree's sidecar: for each an app that speaks gRPC, one that speaks HTTP,
and a program of checks, each beside a sidecar of its own.

  run.py [-v] [-k WORD] [--redis | --kafka] [SDK...]    SDKs: python js java; only checks' lines that contain WORD
  are counted and shown; --redis, --kafka: events are on a redis-server or a Kafka instead of in a file

Prints SKIP and FAIL lines, with -v what passed; the last line is "N passed, N failed, N skipped".
Environment: OUTRIGGER_BIN, OUTRIGGER_BUILD; KEEP=1 shows the logs of an SDK that failed."""
import argparse
import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import install  # noqa: E402
from harness import SLOW, Case, Port, component  # noqa: E402
from kafka_server import KafkaServer, missing  # noqa: E402
from redis_server import HAS_REDIS, RedisServer  # noqa: E402

CHECK_S = 40 * SLOW  # the longest between two lines of a program
JVM = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"]


def python_programs():
    interpreter = install.python(os.path.join(HERE, "python", "requirements.txt"))
    return [[interpreter, "-W", "ignore", os.path.join(HERE, "python", name)]
            for name in ("server_grpc.py", "server_http.py", "client.py")]


def js_programs():
    directory = install.node(os.path.join(HERE, "js"))
    for name in ("server.mjs", "client.mjs"):  # modules are looked for above the file that asks for them
        shutil.copy(os.path.join(HERE, "js", name), directory)
    server, client = (os.path.join(directory, name) for name in ("server.mjs", "client.mjs"))
    return [["node", server, "grpc"], ["node", server, "http"], ["node", client]]


def java_programs():
    directory = os.path.join(HERE, "java")
    classpath = install.java("java", os.path.join(directory, "pom.xml"), install.java_sources(directory))
    return [[*JVM, classpath, name] for name in ("GrpcApp", "HttpApp", "Checks")]


SDKS = {"python": python_programs, "js": js_programs, "java": java_programs}


class Sdk(Case):
    """One SDK's apps and sidecars."""

    redis = kafka = None  # where events are, if not in a file

    def runTest(self):
        pass

    def events(self):
        if self.redis:
            return component("events", "pubsub.redis", {"redisHost": self.redis.host, "redeliverInterval": "20ms",
                                                        "processingTimeout": "200ms"})
        if self.kafka:
            return self.kafka.component("events")
        return component("events", "pubsub.sqlite", {"connectionString": self.path("events.db"), "redeliverInterval": "20ms"})

    def resources(self):
        if not os.path.exists(self.path("secrets.json")):  # the next sidecar's, too, which may be reading it
            with open(self.path("secrets.json"), "w") as file:
                file.write('{"password": "s3cret", "nested": {"key": "value"}}')
        os.makedirs(self.path("files"), exist_ok=True)
        of_redis = {} if not self.server else {
            "redis.yaml": component("redis", "state.redis", {"redisHost": self.server.host}),
            "conf.yaml": component("conf", "configuration.redis", {"redisHost": self.server.host}),
            "locks.yaml": component("locks", "lock.redis", {"redisHost": self.server.host}),
        }
        return {
            **of_redis,
            "tick.yaml": component("tick", "bindings.cron", {"schedule": "@every 1s"}),
            "files.yaml": component("files", "bindings.localstorage", {"rootPath": self.path("files")}),
            "memory.yaml": component("memory", "state.in-memory"),
            "sqlite.yaml": component("sqlite", "state.sqlite", {"connectionString": self.path("state.db")}),
            "events.yaml": self.events(),
            "vault.yaml": component("vault", "secretstores.local.file", {"secretsFile": self.path("secrets.json")}),
        }

    def program(self, name, argv, sidecar, app_port=None, **more):
        """With the variables that `dapr run` would set, and no others of that kind."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_", "ASAN_", "LSAN_"))}
        env.update({"DAPR_HTTP_PORT": str(sidecar.http), "DAPR_GRPC_PORT": str(sidecar.ports["grpc"].number),
                    "APP_ID": sidecar.app_id, "PYTHONUNBUFFERED": "1", "DAPR_API_TOKEN": "api-secret",
                    "STORES": "memory sqlite redis" if self.server else "memory sqlite",
                    "APP_API_TOKEN": "app-secret", "no_proxy": "127.0.0.1,localhost", "grpc_proxy": ""})
        if app_port is not None:
            env["APP_PORT"] = str(app_port)
        with open(self.path(name + ".log"), "w") as log:
            process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=log,
                                       stdout=more.get("stdout", log), text=True)
        self.started.append(process)
        return process

    def callee(self, app_id, argv, protocol):
        port = Port()
        sidecar = self.sidecar(app_id, port.number, is_ready=False, resources=self.resources(),
                               env={"APP_API_TOKEN": "app-secret", "DAPR_API_TOKEN": "api-secret"},
                               flags=["--app-protocol", protocol, "--enable-app-health-check", "--app-health-probe-interval", "1"])
        self.program(app_id, argv, sidecar, port.number)
        self.held.append(port)
        return sidecar

    def run_checks(self, programs, report):
        """report(name, trouble) for each check, trouble being None for one that passed."""
        self.held = []
        self.server = self.redis or (RedisServer(self) if HAS_REDIS else None)
        if self.server:
            self.server.command("MSET", "colour", "blue||v1", "beat", "0")
            threading.Thread(target=self.beat, daemon=True).start()
        grpc_app, http_app, client = programs
        sidecars = [self.callee("grpc-app", grpc_app, "grpc"), self.callee("http-app", http_app, "http")]
        caller = self.sidecar("client", resources=self.resources(), env={"DAPR_API_TOKEN": "api-secret"})
        for sidecar in sidecars:
            sidecar.wait_ready()
        process = self.program("client", client, caller, stdout=subprocess.PIPE)
        caller.may_end = True  # the last check asks for it
        lines = queue.Queue()

        def read():
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
            lines.put(None)
        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=CHECK_S)
            except queue.Empty:
                return report("goes on", "no word for %d s" % CHECK_S)
            if line == "end":
                break
            if line is None:
                return report("runs to its end", "ended early: %s" % self.tail("client.log"))
            word, _, rest = line.partition(" ")
            if word == "ok":
                report(rest, None)
            elif word == "FAIL":
                name, _, trouble = rest.partition(": ")
                report(name, trouble)
        code = caller.wait_exit()
        report("shutdown_ends_the_sidecar", None if code == 0 else "exit code %d" % code)

    def beat(self):
        """A value of the configuration that goes on changing."""
        with contextlib.suppress(OSError, EOFError):
            for n in itertools.count(1):
                self.server.command("SET", "beat", "%d||v%d" % (n, n))
                time.sleep(0.2)  # a rate

    def tail(self, name):
        with open(self.path(name), errors="replace") as file:
            return file.read()[-3000:]

    def show(self):
        for root, _, names in os.walk(self.dir):
            for name in names:
                if name.endswith("log"):
                    path = os.path.join(root, name)
                    print("     ---- %s\n%s" % (os.path.relpath(path, self.dir), self.tail(path)))


def run_sdk(name, options, counts):
    def report(check, trouble):
        if options.k not in check:
            return
        counts[0 if trouble is None else 1] += 1
        if trouble is not None:
            print("FAIL %s.%s: %s" % (name, check, trouble), flush=True)
        elif options.v:
            print("ok   %s.%s" % (name, check), flush=True)
    try:
        programs = SDKS[name]()
    except install.Unavailable as error:
        print("SKIP %s: %s" % (name, error), flush=True)
        counts[2] += 1
        return
    began, failed = time.monotonic(), counts[1]
    case = Sdk()
    case.setUp()
    try:
        if options.redis:
            case.redis = RedisServer(case)
        if options.kafka:
            case.kafka = KafkaServer()
            case.addCleanup(case.kafka.close)
        case.run_checks(programs, report)
    except (AssertionError, OSError) as error:
        report("starts", str(error))
    finally:
        if counts[1] > failed and os.environ.get("KEEP"):
            case.show()
        try:
            case.tearDown()
        except AssertionError as error:
            report("sidecars", str(error))
        case.doCleanups()
    if options.v:
        print("     %s took %.1f s" % (name, time.monotonic() - began), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-v", action="store_true")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--redis", action="store_true")
    where.add_argument("--kafka", action="store_true")
    parser.add_argument("-k", default="")
    parser.add_argument("sdks", nargs="*", metavar="SDK")
    options = parser.parse_args()
    counts = [0, 0, 0]
    if options.redis and not shutil.which("redis-server"):
        print("SKIP redis: no redis-server\n0 passed, 0 failed, 1 skipped")
        return 0
    if options.kafka and missing():
        print("SKIP %s\n0 passed, 0 failed, 1 skipped" % missing())
        return 0
    for name in options.sdks or SDKS:
        run_sdk(name, options, counts)
    print("%d passed, %d failed, %d skipped" % tuple(counts))
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
