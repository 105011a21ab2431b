"""All instances fail: how many requests reach them for each one that is offered."""
from bench import table
from fleet import Load, Ours, Scene, envoys, warm

CALLS_S = 12


def retrying(on, times, breakers=None, **more):
    cluster = {"lb_policy": "LEAST_REQUEST"}
    if breakers:
        cluster["circuit_breakers"] = {"thresholds": [breakers]}
    return {"cluster": cluster, "route": {"retry_policy": {"retry_on": on, "num_retries": times, **more}}}


def measure(_):
    rows = []
    with Scene(3) as (bench, fleet):
        fleet.set(delay_us=5000)
        other = {"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}
        peers = [Ours(bench, fleet)] + envoys(
            bench, fleet, ("envoy, retry_on 5xx", retrying("5xx", 1)),
            ("envoy, with its retry budget", retrying("5xx", 1, {"retry_budget": {}})),
            ("envoy, as Istio has it", retrying("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", 2,
                                                {"max_retries": 4294967295}, retriable_status_codes=[503], **other)))
        for peer in peers:
            fleet.set(status=0)
            warm(peer, fleet)
            fleet.set(status=503)
            row = [peer.name]
            for clients, pause_s in ((4, 0), (20, 0), (20, 0.1)):
                fleet.reset()
                load = Load(peer, clients, seconds=CALLS_S, pause_s=pause_s).wait()
                reached = sum(one["requests"] for one in fleet.stats())
                row.append("%.2f" % (reached / load.total))
            rows.append(row)
    print("3 instances, all answer 503 after 5 ms; GET, %d s each" % CALLS_S)
    table(["requests that reach an instance, for each offered", "4 clients", "20 clients", "20 clients, 200/s"], rows)
