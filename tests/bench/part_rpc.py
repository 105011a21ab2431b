"""The Dapr service over gRPC."""
import os
import statistics

from bench import CALLS, Bench, answers, component, cpu_ns, free_port, h2load, sidecar, table, wait_for

DAPR = "/dapr.proto.runtime.v1.Dapr/"


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def measure(options):
    bench = Bench()
    messages = {"GetState": field(1, b"st") + field(2, b"k1"),
                "SaveState": field(1, b"st") + field(2, field(1, b"k1") + field(2, b'{"n":1}')),
                "PublishEvent": field(1, b"ps") + field(2, b"t") + field(3, b"{}") + field(4, b"application/json"),
                "GetMetadata": b""}
    try:
        bench.file("memory/st.yaml", component("st", "state.in-memory"))
        resources = os.path.dirname(bench.file("memory/ps.yaml", component("ps", "pubsub.in-memory")))
        grpc_port = free_port()
        process, port = sidecar(bench, "memory", resources=resources, env={"OUTRIGGER_LOOPS": "1"}, grpc_port=grpc_port)
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204))
        cpu = {name: [] for name in messages}
        h2load(grpc_port, DAPR + "SaveState", messages["SaveState"], 8)
        for _ in range(options.rounds):
            for name, message in messages.items():
                before = cpu_ns([process.pid])
                h2load(grpc_port, DAPR + name, message, CALLS)
                cpu[name].append((cpu_ns([process.pid]) - before) / CALLS / 1000)
    finally:
        bench.close()
    table(["The Dapr service over gRPC, in-memory components", "CPU, µs/call"],
          [[name, "%.1f" % statistics.median(values)] for name, values in cpu.items()])
