"""Five times the load that an app can serve: what it does for callers who still wait. Rate limits beside it."""
import os

from bench import openload, table, wait_for
from fleet import POLICY, Ours, Scene, envoys

WORKERS, TAKES_US, DEADLINE_MS, SECONDS = 8, 20000, 250, 10
CAPACITY = WORKERS * 1000000 // TAKES_US
GRADIENT = {"name": "envoy.filters.http.adaptive_concurrency", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
    "gradient_controller_config": {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
        "min_rtt_calc_params": {"jitter": {"value": 10}, "interval": "60s", "request_count": 50}}}}


class Guarded(Ours):
    """The policy is for the sidecar of the app."""

    def __init__(self, bench, fleet, name, spec):
        folder = os.path.join(bench.dir, "inbound-" + name.replace(" ", "-").replace(",", ""))
        os.makedirs(folder)
        if spec:
            with open(os.path.join(folder, "policy.yaml"), "w") as file:
                file.write(POLICY.replace("  targets: [callee]\n", "") + spec)
        super().__init__(bench, fleet, name, callee_flags=("--resources-path", folder))


def measure(_):
    rows = []
    with Scene(1) as (bench, fleet):
        fleet.set(delay_us=TAKES_US, servers=WORKERS)
        peers = [Guarded(bench, fleet, "outrigger, without", ""), Guarded(bench, fleet, "outrigger, adaptive", "  inbound: {concurrency: {}}\n")]
        many = {"circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000,
                                                     "max_requests": 100000}]}}
        peers += envoys(bench, fleet, ("envoy, without", {"cluster": many}),
                        ("envoy, adaptive concurrency", {"cluster": many, "filters": [GRADIENT]}))
        for peer in peers:
            alone = openload(fleet.ports[0], "/x", 5 * CAPACITY, 3, WORKERS, may_fail=True)  # as many callers as workers
            can = alone["answered"] / (3 + 5)  # it drains for 5 s
            wait_until_idle(fleet)
            openload(peer.port, peer.path, CAPACITY // 2, 3, 256, may_fail=True)  # it knows the app
            fleet.reset()
            result = openload(peer.port, peer.path, 5 * CAPACITY, SECONDS, 1000, DEADLINE_MS, may_fail=True)
            did = fleet.reset()[0]
            rows.append([peer.name, "%.0f %%" % (100 * result["in_time"] / (can * SECONDS)), "%.0f /s" % can, "%d" % (did["requests"] / SECONDS),
                         "%.0f ms" % (result["p50"] / 1000), "%.0f ms" % (result["p99"] / 1000)])
            wait_until_idle(fleet)
    print("An app of %d workers and %d ms a call (%d/s), %d/s offered for %d s; good is what is answered within %d ms"
          % (WORKERS, TAKES_US / 1000, CAPACITY, 5 * CAPACITY, SECONDS, DEADLINE_MS))
    table(["", "good answers, of what it can do", "which is", "requests that reach it each second", "all answers, p50", "p99"], rows)


def wait_until_idle(fleet):
    wait_for("an idle app", lambda: fleet.stats()[0]["in_hand"] == 0, 60, 0.1)
