"""Certificates of 30 seconds under a constant load, with another root, through an overlap, in the middle."""
import concurrent.futures
import os
import time

from bench import Bench, answers, openload, put, sidecar, start_nginx, table, wait_for
from part_mtls import Case
from pki import Authority

RATE = 500
PATH = "/v1.0/invoke/callee/method/x"


def change_root(bench, old, new, bundle, seconds):
    """old's place is taken by new, after everybody trusts both; old's root goes when nobody has a certificate of it."""
    put(bundle, old.anchors + new.anchors)
    for name in ("caller", "callee"):
        wait_for(name, lambda: "trust anchors have changed" in bench.log(name + ".log"), 30)
    new.ports["sign"] = old.ports["sign"]
    old.stop()
    new.start()
    time.sleep(seconds)  # as long as a certificate of the old one may last
    put(bundle, new.anchors)


def measure(options):
    bench, seconds = Bench(), options.certs_seconds
    try:
        app, case = start_nginx(bench), Case(bench)
        old, new = Authority(case, ttl="30s").start(), Authority(case, ttl="30s")
        Authority(case, ttl="30s", folder=new.dir).start().stop()  # makes the files
        bundle = os.path.join(bench.dir, "anchors.pem")
        put(bundle, old.anchors)
        more = {"flags": ["--enable-mtls", "--sentry-address", "127.0.0.1:%d" % old.port], "env": {"OUTRIGGER_TRUST_ANCHORS_FILE": bundle}}
        _, port = sidecar(bench, "callee", app, **more)
        wait_for("callee", answers(port, "/v1.0/healthz", 204))
        _, port = sidecar(bench, "caller", **more)
        wait_for("caller", answers(port, PATH))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            load = pool.submit(openload, port, PATH, RATE, seconds)  # raises when one call fails
            time.sleep(seconds / 2 - 15)  # the middle of the load is the middle of the change
            change_root(bench, old, new, bundle, 30)
            result = load.result()
        renewals = [bench.log(name + ".log").count("identity renewed") for name in ("caller", "callee")]
    finally:
        bench.close()
    table(["Certificates of 30 s, %d requests/s for %d s, another root in the middle" % (RATE, seconds), ""],
          [["requests, failed", "%d, %d" % (result["sent"], result["errors"])], ["p99, µs", "%d" % result["p99"]],
           ["renewals of caller and callee", "%d, %d" % tuple(renewals)]])
