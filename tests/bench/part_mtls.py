"""Mutual TLS between the sidecars: the cost of a request and of a handshake, beside nghttpx, haproxy and Envoy; memory.

All pairs have the same chain (Ed25519, made as sentry makes it) but Envoy's, which takes ECDSA (P-256) only."""
import json
import os
import socket
import ssl
import statistics
import time

from bench import (BODY, CONNECTIONS, RATE, Bench, answers, call, cpu_ns, family, free_port, openload, pss_kib, sidecar, start_nginx,
                   table, wait_for, wrk)
from fleet import find_envoy
from pki import Authority, Pki, client_context, openssl

HANDSHAKES = 300
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS


class Case:
    """What Authority wants of a test."""

    def __init__(self, bench):
        self.bench, self.started = bench, bench.processes

    def path(self, name):
        return os.path.join(self.bench.dir, name)


class Outrigger:
    name, path = "outrigger", "/v1.0/invoke/callee/method/x"

    def __init__(self, bench, app, authority, env=None):
        more = authority.flags_for()
        env = {**more["env"], **({"OUTRIGGER_LOOPS": "1"} if env is None else env)}
        self.middle = free_port()
        callee, port = sidecar(bench, "callee", app, env=env, flags=more["flags"], internal_port=self.middle)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        caller, self.port = sidecar(bench, "caller", env=env, flags=more["flags"])
        self.processes = [caller, callee]


class Nghttpx:
    name, path = "nghttpx", "/x"

    def __init__(self, bench, app, authority, pki):
        self.port, self.middle = free_port(), free_port()
        chain, key = pki.leaf("URI:spiffe://public/ns/default/callee,DNS:localhost")
        common = ["--workers=1", "--no-ocsp", "--log-level=ERROR", "--conf=/dev/null", "--errorlog-file=/dev/null",
                  "--cacert=" + pki.path("ca.crt")]
        self.processes = [
            bench.start("nghttpx", *common, "--client-cert-file=" + chain, "--client-private-key-file=" + key,
                        "-f127.0.0.1,%d;no-tls" % self.port, "-blocalhost,%d;;tls;proto=h2" % self.middle),
            bench.start("nghttpx", *common, "--verify-client", "--verify-client-cacert=" + pki.path("ca.crt"),
                        "-f127.0.0.1,%d" % self.middle, "-b127.0.0.1,%d;;no-tls" % app, key, chain)]


class Haproxy:
    name, path = "haproxy", "/x"

    def __init__(self, bench, app, authority, pki):
        self.port, self.middle = free_port(), free_port()
        chain, key = pki.leaf("URI:spiffe://public/ns/default/callee,DNS:localhost")
        both = bench.file("haproxy.pem", open(chain).read() + open(key).read())
        common = "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n"
        tls = "ca-file %s crt %s verify required alpn h2" % (pki.path("ca.crt"), both)
        first = bench.file("haproxy1.cfg", common + "frontend f\n  bind 127.0.0.1:%d\n  default_backend b\nbackend b\n"
                           "  server s 127.0.0.1:%d ssl %s\n" % (self.port, self.middle, tls))
        second = bench.file("haproxy2.cfg", common + "frontend f\n  bind 127.0.0.1:%d ssl %s\n  default_backend b\nbackend b\n"
                            "  server s 127.0.0.1:%d\n" % (self.middle, tls, app))
        self.processes = [bench.start("haproxy", "-db", "-q", "-f", first), bench.start("haproxy", "-db", "-q", "-f", second)]


class Envoy:
    name, path = "envoy", "/x"
    binary = None

    def __init__(self, bench, app, authority, pki):
        self.port, self.middle = free_port(), free_port()
        pki = self.make_pki(bench)
        identity = {"tls_certificates": [{"certificate_chain": {"filename": pki[0]}, "private_key": {"filename": pki[1]}}],
                    "validation_context": {"trusted_ca": {"filename": pki[2]}}, "alpn_protocols": ["h2"]}

        def tls(kind, **more):
            return {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3." + kind, "common_tls_context": identity, **more}}
        self.processes = [
            self.one(bench, "envoy1", self.port, None, self.middle, tls("UpstreamTlsContext")),
            self.one(bench, "envoy2", self.middle, tls("DownstreamTlsContext", require_client_certificate=True), app, None)]

    @staticmethod
    def make_pki(bench):
        folder = os.path.join(bench.dir, "envoy-pki")
        os.makedirs(folder)
        root, key = os.path.join(folder, "ca.crt"), os.path.join(folder, "ca.key")
        leaf, leaf_key, request = (os.path.join(folder, name) for name in ("leaf.crt", "leaf.key", "leaf.csr"))
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=x")
        openssl("req", "-x509", *new, "-keyout", key, "-out", root, "-days", "2")
        openssl("req", "-new", *new, "-keyout", leaf_key, "-out", request, "-addext", "subjectAltName=DNS:localhost")
        openssl("x509", "-req", "-in", request, "-CA", root, "-CAkey", key, "-CAcreateserial", "-days", "2", "-copy_extensions", "copy",
                "-out", leaf)
        return leaf, leaf_key, root

    def one(self, bench, name, port, tls_in, upstream, tls_out):
        def address(number):
            return {"socket_address": {"address": "127.0.0.1", "port_value": number}}
        manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                   "stat_prefix": "x", "codec_type": "AUTO",
                   "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                       "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                   "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "next"}}]}]}}
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        cluster = {"name": "next", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "next", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}
        if tls_in:
            chain["transport_socket"] = tls_in
        if tls_out:
            cluster["transport_socket"] = tls_out
            cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}}
        config = bench.file(name + ".json", json.dumps({"static_resources": {
            "listeners": [{"address": address(port), "filter_chains": [chain]}], "clusters": [cluster]}}))
        return bench.start(self.binary, "-c", config, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error",
                           "--disable-hot-restart", log=name + ".log")


def shake_hands(port, context, sessions):
    """So many connections; sessions: each resumes the one before."""
    session, resumed = None, 0
    for _ in range(HANDSHAKES):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            with context.wrap_socket(raw, session=session if sessions else None) as tls:
                tls.settimeout(10)
                tls.sendall(PREFACE)
                tls.recv(1)  # its SETTINGS, behind the tickets
                resumed += tls.session_reused
                session = tls.session
    return resumed


def measure_requests(peers, rounds):
    for _ in range(rounds):
        for peer in peers:
            before = cpu_ns(peer.pids)
            requests, rate = wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path))
            peer.cpu_us.append((cpu_ns(peer.pids) - before) / requests / 1000)
            peer.rate.append(rate)
        for peer in peers:
            peer.p50.append(openload(peer.port, peer.path)["p50"])


def measure_handshakes(peers, pki, rounds):
    context = client_context(pki.leaf("URI:spiffe://public/ns/default/caller,DNS:localhost"))
    for _ in range(min(rounds, 3)):
        for peer in peers:
            for sessions, sums in ((False, peer.full_us), (True, peer.resumed_us)):
                before = cpu_ns(peer.pids[-1:])
                resumed = shake_hands(peer.middle, context, sessions)
                sums.append((cpu_ns(peer.pids[-1:]) - before) / HANDSHAKES / 1000)
                peer.resumed = resumed if sessions else 0


def measure(options):
    bench = Bench()
    Envoy.binary = find_envoy()
    try:
        app = start_nginx(bench)
        authority = Authority(Case(bench)).start()
        pki = Pki(authority.dir, made=True)
        kinds = [Outrigger, Nghttpx, Haproxy] + ([Envoy] if Envoy.binary else [])
        peers = [kind(bench, app, authority, *([] if kind is Outrigger else [pki])) for kind in kinds]
        for peer in peers:
            wait_for(peer.name, answers(peer.port, peer.path))
            if len(call(peer.port, "GET", peer.path).body) != BODY:
                raise RuntimeError(peer.name + " does not pass the body on")
            peer.pids = [pid for process in peer.processes for pid in family(process.pid)]
            peer.cpu_us, peer.rate, peer.p50, peer.full_us, peer.resumed_us = [], [], [], [], []
        idle = max(pss_kib([process.pid]) for process in peers[0].processes)
        for peer in peers:
            wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path), 1)
        measure_requests(peers, options.rounds)
        measure_handshakes(peers[:3], pki, options.rounds)
    finally:
        bench.close()
    print("Client -> sidecar -> sidecar -> app, mutual TLS between the two, %d B, %d keep-alive connections, one worker each; "
          "median of %d rounds" % (BODY, CONNECTIONS, options.rounds))
    base = {key: statistics.median(getattr(peers[1], key)) for key in ("cpu_us", "p50", "full_us", "resumed_us")}
    ours = statistics.median(peers[0].cpu_us)
    rows = []
    for peer in peers:
        cpu_us, p50 = statistics.median(peer.cpu_us), statistics.median(peer.p50)
        rows.append([peer.name + " pair", "%.1f" % cpu_us, "%.2f" % (cpu_us / base["cpu_us"]), "%.2f" % (ours / cpu_us),
                     "%.0f" % statistics.median(peer.rate), "%d" % p50])
    table(["", "CPU of both, µs/request", "x nghttpx", "outrigger is x this", "requests/s at most", "p50 µs at %d/s" % RATE], rows)
    rows = []
    for peer in peers[:3]:
        full, resumed = statistics.median(peer.full_us), statistics.median(peer.resumed_us)
        rows.append([peer.name, "%.0f" % full, "%.2f" % (full / base["full_us"]), "%.0f" % resumed, "%.2f" % (resumed / base["resumed_us"]),
                     "%d of %d" % (peer.resumed, HANDSHAKES)])
    table(["Called side, CPU of a handshake", "full, µs", "x nghttpx", "resumed, µs", "x nghttpx", "were resumed"], rows)
    table(["Memory (PSS)", ""], [["idle sidecar with mutual TLS", "%.1f MiB" % (idle / 1024)]])
