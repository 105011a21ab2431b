"""Client -> sidecar -> sidecar -> app, beside pairs of nghttpx and haproxy."""
import statistics

from bench import (BODY, CONNECTIONS, RATE, Bench, Haproxy, Nghttpx, Outrigger, answers, call, cpu_ns, family, openload, start_nginx,
                   table, wait_for, wrk)


def measure(options):
    bench = Bench()
    try:
        app = start_nginx(bench)
        peers = [make(bench, app) for make in (Outrigger, Nghttpx, Haproxy)]
        for peer in peers:
            wait_for(peer.name, answers(peer.port, peer.path))
            if len(call(peer.port, "GET", peer.path).body) != BODY:
                raise RuntimeError(peer.name + " does not pass the body on")
            wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path), 1)
            peer.pids = [pid for process in peer.processes for pid in family(process.pid)]
            peer.cpu_us, peer.rate, peer.p50, peer.p99 = [], [], [], []
        for _ in range(options.rounds):
            for peer in peers:
                before = cpu_ns(peer.pids)
                requests, rate = wrk("http://127.0.0.1:%d%s" % (peer.port, peer.path))
                peer.cpu_us.append((cpu_ns(peer.pids) - before) / requests / 1000)
                peer.rate.append(rate)
            for peer in peers:
                latency = openload(peer.port, peer.path)
                peer.p50.append(latency["p50"])
                peer.p99.append(latency["p99"])
    finally:
        bench.close()
    print("Client -> sidecar -> sidecar -> app (HTTP/1.1 -> HTTP/2 -> HTTP/1.1), plain, %d B, %d keep-alive connections, "
          "one worker each, app = nginx; median of %d rounds" % (BODY, CONNECTIONS, options.rounds))
    base = {key: statistics.median(getattr(peers[1], key)) for key in ("cpu_us", "p50", "p99")}
    rows = []
    for peer in peers:
        medians = {key: statistics.median(getattr(peer, key)) for key in ("cpu_us", "rate", "p50", "p99")}
        rows.append([peer.name + " pair", "%.1f" % medians["cpu_us"], "%.2f" % (medians["cpu_us"] / base["cpu_us"]),
                     "%.0f" % medians["rate"], "%d" % medians["p50"], "%.2f" % (medians["p50"] / base["p50"]),
                     "%d" % medians["p99"], "%.2f" % (medians["p99"] / base["p99"])])
    table(["", "CPU of both, µs/request", "x nghttpx", "requests/s at most", "p50 µs at %d/s" % RATE, "x nghttpx",
           "p99 µs at %d/s" % RATE, "x nghttpx"], rows)
