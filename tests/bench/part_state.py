"""State over HTTP: in memory, and durably."""
import os
import statistics

from bench import Bench, answers, component, cpu_ns, sidecar, sqlite_resources, table, wait_for, wrk


SAVE = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, '[{"key":"k' .. (n %% %d) .. '","value":{"n":' .. n .. '}}]')
end
"""


def measure(options):
    bench = Bench()
    try:
        memory = bench.file("memory/st.yaml", component("st", "state.in-memory"))
        save = bench.file("save.lua", SAVE % 1000)
        process, port = sidecar(bench, "memory", resources=os.path.dirname(memory), env={"OUTRIGGER_LOOPS": "1"})
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        url = "http://127.0.0.1:%d" % port
        wrk(url + "/v1.0/state/st", 1, script=save)
        kinds = {"bare answer (GET /v1.0/healthz)": (url + "/v1.0/healthz", None), "get, in-memory": (url + "/v1.0/state/st/k1", None),
                 "save, in-memory": (url + "/v1.0/state/st", save)}
        cpu = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, (target, script) in kinds.items():
                before = cpu_ns([process.pid])
                requests, _ = wrk(target, 2, script=script)
                cpu[name].append((cpu_ns([process.pid]) - before) / requests / 1000)
        bench.stop(process)
        process, port = sidecar(bench, "sqlite", resources=sqlite_resources(bench))
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        saves = [wrk("http://127.0.0.1:%d/v1.0/state/st" % port, 3, connections=16, script=save)[1] for _ in range(options.rounds)]
    finally:
        bench.close()
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    bare = next(iter(medians.values()))
    table(["State over HTTP", "CPU, µs/request", "x bare"],
          [[name, "%.1f" % value, "%.2f" % (value / bare)] for name, value in medians.items()])
    table(["Durable saves, state.sqlite, 16 connections", "per second"], [["median of %d" % len(saves), "%.0f" % statistics.median(saves)]])
