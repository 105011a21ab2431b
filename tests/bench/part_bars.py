"""What tests/integration/test_bars.py promises and no other part measures: slow start, 429, circuit breaker, bulkhead,
rate limits, faults, copies. Counts are the instances' own; Envoy has its own features for each, set to do the same."""
import collections
import contextlib
import datetime
import json
import os
import threading
import time

from bench import TimedOut, answers, call, component, openload, put, sidecar, table, wait_for
from fleet import POLICY, Load, Ours, Scene, envoys, warm
from part_canary import Half
from part_ejection import OUTLIER, ejections
from part_overload import Guarded
from part_redis import start_redis

RAMP_S = 10
LIMIT, OFFERED = 100, 400  # calls a second
FAULTY = 20000
BREAKER = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies:
    timeouts: {short: 200ms}
    circuitBreakers: {trip: {maxRequests: 1, timeout: 3s, trip: consecutiveFailures >= 3}}
  targets: {apps: {callee: {timeout: short, circuitBreaker: trip}}}
"""
PLACES = 10
PATH = "/v1.0/invoke/callee/method/x"


def measure(_):
    for one in (slow_start, load_is_no_failure, breaker, bulkhead, rate_limit, shared_rate, fault, mirror):
        one()


# ---------------------------------------------------------------- a new instance
class Growing:
    """An Envoy that reads its instances from a file, so that one can come."""

    def __init__(self, bench, ports):
        self.path = os.path.join(bench.dir, "instances.json")
        self.write(ports)
        self.cluster = {"type": "EDS", "lb_policy": "ROUND_ROBIN", "round_robin_lb_config": {
            "slow_start_config": {"slow_start_window": "%ds" % RAMP_S}}, "eds_cluster_config": {
            "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": self.path}}}}

    def write(self, ports):
        put(self.path, json.dumps({"resources": [{
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": "127.0.0.1", "port_value": port}}}} for port in ports]}]}]}))


def ramp(samples, until_s):
    """Share of the last instance from its first call on until then, in percent."""
    began = next(i for i, (_, counts) in enumerate(samples) if counts[-1])
    first, last = samples[max(0, began - 1)], [s for s in samples if s[0] <= samples[began][0] + until_s][-1]
    got = [b - a for a, b in zip(first[1], last[1])]
    return 100 * got[-1] / sum(got)


def peak(samples, over=4):
    """Its share in the best second."""
    best = 0
    for (_, a), (_, b) in zip(samples, samples[over:]):
        if b[-1] > a[-1]:
            best = max(best, 100 * (b[-1] - a[-1]) / (sum(b) - sum(a)))
    return best


def slow_start(clients=8):
    rows = []
    with Scene(6) as (bench, fleet):  # three for each, at the same time
        fleet.set(delay_us=2000)
        halves = [fleet.ports[:3], fleet.ports[3:]]
        ours = Ours(bench, Half(halves[0][:2]))
        growing = Growing(bench, halves[1][:2])
        peers = [ours] + envoys(bench, Half([]), ("envoy, slow start", {"cluster": growing.cluster}))
        loads = [Load(peer, clients, pause_s=clients / 300) for peer in peers]
        try:
            time.sleep(RAMP_S + 1)  # the ramps of those that were here, which Envoy does not tell of
            fleet.reset()
            sidecar(bench, "callee", halves[0][2], env={"OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-" + ours.name)})
            growing.write(halves[1])
            samples, end = [[], []], time.monotonic() + RAMP_S + 1.5
            while time.monotonic() < end:
                now, counts = time.monotonic(), [one["requests"] for one in fleet.stats()]
                samples[0].append((now, counts[:3]))
                samples[1].append((now, counts[3:]))
                time.sleep(0.25)  # a rate: samples
        finally:
            for load in loads:
                load.stop()
        for peer, seen in zip(peers, samples):
            rows.append([peer.name, *("%.1f %%" % ramp(seen, RAMP_S * part) for part in (0.2, 0.5, 1)), "%.1f %%" % peak(seen)])
    print("An instance comes to two others, 300 calls/s of %d clients, a ramp of %d s; its share" % (clients, RAMP_S))
    table(["", "in the first fifth of it", "first half", "all of it", "in any second at most"], rows)


# ---------------------------------------------------------------- 429
def load_is_no_failure():
    rows = []
    with Scene(5) as (bench, fleet):
        fleet.set(delay_us=5000)
        peers = [Ours(bench, fleet)] + envoys(bench, fleet, ("envoy, least request", {
            "cluster": {"lb_policy": "LEAST_REQUEST", "outlier_detection": OUTLIER}}))
        for peer in peers:
            fleet.set(status=0, delay_us=5000)
            warm(peer, fleet)
            fleet.set(0, delay_us=0, status=429)
            load = Load(peer, 4, seconds=3).wait()
            rows.append([peer.name, "%.2f %%" % fleet.shares()[0], "%d" % ejections(peer), "%d of %d" % (load.statuses[429], load.total)])
    print("One of 5 instances answers 429 at once, the others 200 in 5 ms; outlier detection is on")
    table(["", "its share", "times it was ejected", "429 to callers"], rows)


# ---------------------------------------------------------------- an app that hangs
def breaker():
    rows = []
    with Scene(1) as (bench, fleet):
        fleet.set(delay_us=0)
        ours = Ours(bench, fleet)
        bench.file("resources-outrigger/resiliency.yaml", BREAKER)
        wait_for("the breaker", lambda: "resources reloaded" in bench.log("caller.log"))
        peers = [ours] + envoys(bench, fleet, ("envoy, outlier detection of all", {"route": {"timeout": "0.2s"}, "cluster": {
            "outlier_detection": {"consecutive_5xx": 3, "interval": "1s", "base_ejection_time": "3s", "max_ejection_percent": 100},
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}}}}))
        for peer in peers:
            fleet.set(delay_us=0)
            warm(peer, fleet, 100)
            fleet.set(delay_us=30000000)
            Load(peer, 1, calls=20, verb="POST").wait()
            opened = fleet.reset()[0]["requests"]
            load = Load(peer, 8, seconds=1.5, verb="POST", pause_s=0.02).wait()
            after = "%d of %d" % (fleet.reset()[0]["requests"], load.total)
            again = Load(peer, 8, seconds=3.2, verb="POST", pause_s=0.02).wait()  # it ends within this
            rows.append([peer.name, "%d" % opened, after, "%.1f ms" % load.quantile(0.5),
                         "%d of %d" % (fleet.reset()[0]["requests"], again.total)])
    print("An app hangs; calls end after 200 ms; three failures open the breaker for 3 s (Envoy: looked at each second)")
    table(["", "calls that reach it until then", "while it is open", "answered after, p50", "when it is tried again"], rows)


def bulkhead():
    rows = []
    with Scene(1) as (bench, fleet):
        fleet.set(delay_us=0)
        limits = {"max_requests": PLACES, "max_pending_requests": PLACES, "max_connections": 1000}
        peers = [Ours(bench, fleet, policy="  limits: {requests: %d, pending: %d}\n" % (PLACES, PLACES))]
        peers += envoys(bench, fleet, ("envoy, circuit_breakers", {"cluster": {"circuit_breakers": {"thresholds": [limits]}}}))
        for peer in peers:
            fleet.set(delay_us=0)
            warm(peer, fleet, 100)
            fleet.set(delay_us=1000000)
            load, most = Load(peer, 40, seconds=1.5, verb="POST", pause_s=0.05), 0
            while any(thread.is_alive() for thread in load.threads):
                most = max(most, fleet.stats()[0]["in_hand"])
                time.sleep(0.02)  # a rate: samples
            load.wait()
            rows.append([peer.name, "%d" % most, "%d of %d" % (load.statuses[503], load.total), "%.1f ms" % load.quantile(0.5)])
    print("40 callers of an app that takes 1 s; %d calls may be under way, %d wait for a connection" % (PLACES, PLACES))
    table(["", "at the app at once, at most", "answered 503", "p50 of all answers"], rows)


# ---------------------------------------------------------------- rates
def rate_limit():
    rows, seconds, burst = [], 5, 10
    token_bucket = {"name": "envoy.filters.http.local_ratelimit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "rate",
        "token_bucket": {"max_tokens": burst, "tokens_per_fill": burst, "fill_interval": "%.1fs" % (burst / LIMIT)},
        **{key: {"default_value": {"numerator": 100}} for key in ("filter_enabled", "filter_enforced")}}}
    with Scene(1) as (bench, fleet):
        fleet.set(delay_us=0)
        limit = "  inbound: {rateLimits: [{name: all, requests: %d, interval: 1s, burst: %d}]}\n" % (LIMIT, burst)
        peers = [Guarded(bench, fleet, "outrigger", limit)] + envoys(bench, fleet, ("envoy, local_ratelimit", {"filters": [token_bucket]}))
        for peer in peers:
            Load(peer, 4, calls=20).wait()
            time.sleep(0.5)  # until the burst is whole again, as the rate says
            fleet.reset()
            result = openload(peer.port, peer.path, OFFERED, seconds, 32, may_fail=True)
            reached = fleet.reset()[0]["requests"]
            rows.append([peer.name, "%.1f /s" % (reached / seconds), "%d of %d" % (reached, result["sent"])])
    print("%d/s and %d at once allowed, %d/s offered for %d s (so %d is exact), two loops or workers"
          % (LIMIT, burst, OFFERED, seconds, LIMIT * seconds + burst))
    table(["", "let in", "in all"], rows)


def shared_rate():
    seconds = 5
    with Scene(3) as (bench, fleet):
        fleet.set(delay_us=0)
        redis = start_redis(bench)
        bench.file("shared/s.yaml", component("shared", "state.redis", {"redisHost": "127.0.0.1:%d" % redis}))
        path = bench.file("shared/p.yaml", POLICY.replace("  targets: [callee]\n", "")
                          + "  inbound: {rateLimits: [{name: all, requests: %d, interval: 1s, burst: 15, store: shared}]}\n" % LIMIT)
        ports = []
        for port in fleet.ports:
            ports.append(sidecar(bench, "callee", port, resources=os.path.dirname(path), env={"OUTRIGGER_LOOPS": "2"})[1])
            wait_for("a sidecar", answers(ports[-1], "/v1.0/healthz", 204))

        def offer(each, how_long):
            threads = [threading.Thread(target=openload, args=(port, PATH, each, how_long, 16), kwargs={"may_fail": True})
                       for port in ports]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        offer(150, 1)
        fleet.reset()
        offer(150, seconds)
        counts = [one["requests"] for one in fleet.reset()]
    print("%d/s for three sidecars together, by a Redis; 150/s offered to each for %d s" % (LIMIT, seconds))
    table(["", "let in", "by each"], [["outrigger", "%.1f /s" % (sum(counts) / seconds), ", ".join("%.1f" % (n / seconds) for n in counts)]])


# ---------------------------------------------------------------- experiments
def fault():
    rows, rate = [], 5000
    abort = {"name": "envoy.filters.http.fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 503, "percentage": {"numerator": 10}}}}

    def policy(expires, percent):
        return POLICY + "  routes:\n  - fault: {expires: %s, abort: {status: 503, percent: %d}}\n" % (
            expires.strftime("%Y-%m-%dT%H:%M:%SZ"), percent)
    with Scene(1) as (bench, fleet):
        fleet.set(delay_us=0)
        now = datetime.datetime.now(datetime.timezone.utc)
        ours = Ours(bench, fleet, policy=policy(now + datetime.timedelta(hours=1), 10)[len(POLICY):])
        peers = [ours] + envoys(bench, fleet, ("envoy, fault filter", {"filters": [abort]}))
        for peer in peers:
            fleet.reset()
            result = openload(peer.port, peer.path, rate, FAULTY // rate, 32, may_fail=True)
            reached = fleet.reset()[0]["requests"]
            if result["answered"] != FAULTY:
                raise RuntimeError("%s: %s" % (peer.name, result))
            rows.append([peer.name, "%.2f %%" % (100 * (FAULTY - reached) / FAULTY)])
        expires = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)).replace(microsecond=0)
        bench.file(ours.policy, policy(expires, 100))
        wait_for("the fault", lambda: all(call(ours.port, "GET", ours.path).status == 503 for _ in range(5)))
        wait_for("its end", lambda: call(ours.port, "GET", ours.path).status != 503, 30, 0.002)
        late = (datetime.datetime.now(datetime.timezone.utc) - expires).total_seconds() * 1000
        rows[0].append("%.0f ms after its time" % late)
        rows[1:] = [row + ["when it is taken out"] for row in rows[1:]]
    print("A fault for 10 %% of %d calls" % FAULTY)
    table(["", "fail", "ends"], rows)


def mirror():
    rate, seconds, rounds = 500, 1, 3
    with Scene(2) as (bench, fleet):
        fleet.set(delay_us=1000)
        app, shadow = Half(fleet.ports[:1]), fleet.ports[1:]
        peers = [Ours(bench, app, "outrigger"),
                 Ours(bench, app, "outrigger, mirror", "  routes:\n  - mirror: {appId: shadow, percent: 100}\n")]
        _, port = sidecar(bench, "shadow", shadow[0], env={"OUTRIGGER_RUN_DIR": os.path.join(bench.dir, "run-outrigger--mirror")})
        wait_for("the shadow", answers(port, "/v1.0/healthz", 204))
        copied = {"route": {"request_mirror_policies": [{"cluster": "shadow"}]}, "more_clusters": {"shadow": shadow}}
        peers += envoys(bench, app, ("envoy", {}), ("envoy, request_mirror_policies", copied))
        for peer in peers:
            Load(peer, 4, calls=200).wait()
        p50, copies = collections.defaultdict(list), collections.Counter()
        for turn in range(rounds):
            for peer in peers if turn % 2 == 0 else reversed(peers):
                fleet.reset()
                p50[peer.name].append(openload(peer.port, peer.path, rate, seconds, 32)["p50"])
                with contextlib.suppress(TimedOut):  # then they are fewer
                    wait_for("copies", lambda: "mirror" not in peer.name or fleet.stats()[1]["requests"] >= rate * seconds, 2)
                copies[peer.name] += fleet.stats()[1]["requests"]
    best = {peer.name: min(p50[peer.name]) for peer in peers}  # the round that other work disturbed least
    rows = [[name, "%.4f" % (copies[name] / (rounds * rate * seconds)), "%d us (to %d)" % (value, max(p50[name])),
             "%+d us" % (value - best[name.split(",")[0]]) if "," in name else ""] for name, value in best.items()]
    print("%d calls/s to an app of 1 ms, each of them copied to another app; best of %d rounds" % (rate, rounds))
    table(["", "copies for each call", "p50 of callers", "more than without"], rows)
