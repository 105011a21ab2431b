"""gRPC's own interoperability cases (the published Java client and server) through sidecars that proxy.

Client -> sidecar -> sidecar -> server, in plain text. A case that fails is run without sidecars, too, to tell whether
client and server can do it by themselves. Prints SKIP and FAIL lines, with -v what passed; the last line is
"N passed, N failed, N skipped". Environment: OUTRIGGER_BIN, OUTRIGGER_BUILD."""
import argparse
import os
import queue
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "integration"), os.path.join(os.path.dirname(HERE), "integration", "sdk")]

import install  # noqa: E402
from harness import SLOW, Case, Port, Sidecar, wait_for  # noqa: E402

CASE_S = 30 * SLOW
JVM = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]
ORCA = ("--service_config_json={\"loadBalancingConfig\":[{\"test_backend_metrics_load_balancer\":{}}]}",)
SOAK = ("--soak_iterations=100", "--soak_per_iteration_max_acceptable_latency_ms=%d" % (1000 * SLOW))
CASES = {  # name -> flags beside the usual ones
    "empty_unary": (), "large_unary": (), "client_compressed_unary_noprobe": (), "server_compressed_unary": (),
    "client_streaming": (), "client_compressed_streaming_noprobe": (), "server_streaming": (),
    "server_compressed_streaming": (), "ping_pong": (), "empty_stream": (), "custom_metadata": (),
    "status_code_and_message": (), "special_status_message": (), "unimplemented_method": (),
    "unimplemented_service": (), "cancel_after_begin": (), "cancel_after_first_response": (),
    "timeout_on_sleeping_server": (), "very_large_request": (), "pick_first_unary": (), "rpc_soak": SOAK,
    "channel_soak": SOAK, "orca_per_rpc": ORCA,
}
CHECKED = {"client_compressed_unary": (), "client_compressed_streaming": ()}  # by CheckingServer
ONCE = ("pick_first_unary", "rpc_soak", "channel_soak")  # long, and nothing about them differs by transport
# What this client and server cannot do, or not through a proxy, and why. All about TLS and OAuth is left out.
IMPOSSIBLE = {
    "cacheable_unary": "is about a proxy that caches GET, and the Java server lacks the method",
    "orca_oob": "its out-of-band call carries no metadata, so nobody can know whom it is for",
}


def plan(word):
    """(label, case, app id, flags); the client has two HTTP/2 transports, Netty and OkHttp."""
    for transport, mark in (("", ""), ("--use_okhttp=true", " with OkHttp")):
        for case, flags in (*CASES.items(), *CHECKED.items()):
            if word in case and not (transport and case in ONCE):
                app_id = "checking" if case in CHECKED else "server"
                yield case + mark, case, app_id, (*flags, *filter(None, [transport]))


class Cases:
    """The client's virtual machine: one case after the other."""

    def __init__(self, classpath, log):
        self.process = subprocess.Popen(
            [*JVM, classpath, "io.grpc.testing.integration.InteropCases"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(log, "w"), text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put("FAIL ? the client ended")

    def run(self, case, port, *flags):
        """None, or what is wrong."""
        words = [case, "--server_host=127.0.0.1", "--server_port=%d" % port, "--use_tls=false", "--test_case=" + case, *flags]
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=CASE_S)
        except queue.Empty:
            self.process.kill()
            return "no end within %d s" % CASE_S
        return None if line == "ok " + case else line.split(" ", 2)[2]

    def close(self):
        self.process.kill()
        self.process.wait()


class Interop(Case):
    def runTest(self):
        pass

    def server(self, app_id, classpath, class_, *arguments):
        """On a port of the kernel's choice, %d in arguments, beside a sidecar; its port."""
        port = Port()
        with open(self.path(app_id + ".log"), "w") as log:
            self.started.append(subprocess.Popen(
                [*JVM, classpath, "io.grpc.testing.integration." + class_, *(a.replace("%d", str(port.number)) for a in arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self.sidecar(app_id, port.number, is_ready=False, flags=["--app-protocol", "grpc"])

        def listens():
            with socket.create_connection(("127.0.0.1", port.number)):
                return True
        wait_for("the server", listens, 30)
        port.release()
        return port.number

    def run_all(self, classpath, cases, verbose):
        counts = [0, 0]
        ports = {"server": self.server("server", classpath, "TestServiceServer", "--use_tls=false", "--port=%d"),
                 "checking": self.server("checking", classpath, "CheckingServer", "%d")}
        for sidecar in [s for s in self.started if isinstance(s, Sidecar)]:
            sidecar.wait_ready()
        caller = self.sidecar("client")
        client = Cases(classpath, self.path("client.log"))
        self.started.append(client.process)
        for label, case, app_id, flags in cases:
            began = time.monotonic()
            trouble = client.run(case, caller.ports["grpc"].number, "--additional_metadata=dapr-app-id:" + app_id, *flags)
            took = time.monotonic() - began
            counts[trouble is not None] += 1
            if trouble:
                direct = client.run(case, ports[app_id], *flags)
                print("FAIL %s (%.1f s): %s%s" % (label, took, trouble, "; without sidecars: %s" % direct if direct else ""))
            elif verbose:
                print("ok   %s (%.1f s)" % (label, took))
            sys.stdout.flush()
        return counts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-v", action="store_true", help="show what passed, too")
    parser.add_argument("-k", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    cases = list(plan(options.k))
    skipped = [(name, why) for name, why in IMPOSSIBLE.items() if options.k in name]
    passed = failed = 0
    try:
        classpath = install.java("interop", os.path.join(HERE, "pom.xml"), install.java_sources(HERE))
    except install.Unavailable as error:
        skipped += [(label, str(error)) for label, *_ in cases]
    else:
        case = Interop()
        case.setUp()
        try:
            passed, failed = case.run_all(classpath, cases, options.v)
        finally:
            try:
                case.tearDown()
            except AssertionError as error:
                print("FAIL sidecars: %s" % error)
                failed += 1
    for name, why in skipped:
        print("SKIP %s: %s" % (name, why))
    print("%d passed, %d failed, %d skipped" % (passed, failed, len(skipped)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
