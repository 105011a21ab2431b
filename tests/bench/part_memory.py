"""Memory of a sidecar: idle, with many connections, and after them."""
import os
import resource
import time

from bench import Bench, Client, Outrigger, answers, pss_kib, start_nginx, table, wait_for


def measure(options):
    bench, count = Bench(), 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard - 200)
    try:
        app = start_nginx(bench)
        pair = Outrigger(bench, app, env={})
        wait_for("the pair", answers(pair.port, pair.path))
        time.sleep(1)  # what its start does is over
        idle = [pss_kib([p.pid]) for p in pair.processes]
        clients = []
        for _ in range(count):
            client = Client(pair.port, timeout_s=10)
            if client.call("GET", "/v1.0/healthz").status != 204:
                raise RuntimeError("a held connection got no answer")
            clients.append(client)
        time.sleep(1)  # and the burst of connections
        held = pss_kib([pair.processes[0].pid])
        alive = sum(client.call("GET", "/v1.0/healthz").status == 204 for client in clients[::100])
        for client in clients:
            client.close()
        time.sleep(25)  # memory kept for the next burst goes back after two quiet looks, 10 s apart
        after = pss_kib([pair.processes[0].pid])
    finally:
        bench.close()
    if alive != len(clients[::100]):
        raise RuntimeError("held connections were lost")
    table(["Memory (PSS)", ""], [
        ["idle sidecar, %d loops" % os.cpu_count(), "%.1f MiB" % (max(idle) / 1024)],
        ["per idle keep-alive connection, %d held" % count, "%.1f KiB" % ((held - idle[0]) / count)],
        ["25 s after they are closed", "%.1f MiB" % (after / 1024)]])
