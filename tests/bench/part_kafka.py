"""Kafka through a sidecar and by librdkafka itself, on one node in KRaft mode on this machine."""
import os
import statistics
import subprocess
import time
import unittest

from bench import HERE, TOP, Bench, answers, cpu_ns, free_port, h2load, sidecar, table, wait_for

from harness import Client
from kafka_server import KafkaServer

BYTES = 200
ENTRIES = 1000  # of a bulk publish, and of a bulk subscription
COUNT = 300000
SINGLES = 1000
DIRECT, APP = (os.path.join(TOP, "build", "bench", name) for name in ("kafka_direct", "kafka_app"))


def varint(n):
    return (varint_more(n) if n > 127 else b"") or bytes([n])


def varint_more(n):
    return bytes([n & 127 | 128]) + varint(n >> 7)


def field(tag, data):
    return bytes([tag << 3 | 2]) + varint(len(data)) + data


def bulk_request(topic):
    entries = b"".join(field(3, field(1, b"%d" % i) + field(2, b"x" * BYTES) + field(3, b"text/plain")) for i in range(ENTRIES))
    raw = field(4, field(1, b"rawPayload") + field(2, b"true"))
    return field(1, b"ps") + field(2, topic) + entries + raw


def direct(server, topic, what, count):
    done = subprocess.run([DIRECT, server.host(), topic, what, str(count), str(BYTES)], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def singles(port):
    took = []
    with Client(port) as client:
        for _ in range(SINGLES):
            began = time.monotonic()
            answer = client.call("POST", "/v1.0/publish/ps/single?metadata.rawPayload=true", [("Content-Type", "text/plain")], b"x" * BYTES)
            took.append(time.monotonic() - began)
            if answer.status != 204:
                raise RuntimeError(answer.body)
    return statistics.median(took) * 1e6


def consume(bench, server, resources, n):
    """Events a second to an app that takes them in bulk over gRPC and acknowledges them; CPU of the sidecar for each, us."""
    port = free_port()
    app = subprocess.Popen([APP, str(port), "bulk", str(COUNT), str(ENTRIES)], stdout=subprocess.PIPE, text=True)
    process, _ = sidecar(bench, "consumer%d" % n, app_port=port, resources=resources, flags=("--app-protocol", "grpc"))
    rate = float(app.stdout.readline())
    cpu = cpu_ns([process.pid]) / COUNT / 1000
    bench.stop(process)
    app.wait()
    return rate, cpu


def measure(options):
    try:
        server = KafkaServer()
    except unittest.SkipTest as why:
        print("Kafka: left out, %s\n" % why)
        return
    bench = Bench()
    try:
        for program, library in ((DIRECT, "-lrdkafka"), (APP, "-lnghttp2")):
            source = os.path.join(HERE, os.path.basename(program) + ".c")
            subprocess.run(["gcc", "-O2", "-o", program, source, library], check=True)
        resources = os.path.dirname(bench.file("kafka/ps.yaml", server.component()))
        grpc_port = free_port()
        process, port = sidecar(bench, "publisher", resources=resources, grpc_port=grpc_port)
        wait_for("sidecar", answers(port, "/v1.0/healthz", 204), 60)
        rates = {name: [] for name in ("bulk direct", "bulk", "cpu", "single direct", "single", "consume direct", "consume", "consume cpu")}
        bulk = "/dapr.proto.runtime.v1.Dapr/BulkPublishEvent"
        for topic in (b"bulk", b"warm"):
            h2load(grpc_port, bulk, bulk_request(topic), 8)
        for i in range(options.rounds):
            rates["bulk direct"].append(direct(server, "direct", "produce", COUNT))
            before = cpu_ns([process.pid])
            rates["bulk"].append(ENTRIES * h2load(grpc_port, bulk, bulk_request(b"bulk"), COUNT // ENTRIES, 4, 4))
            rates["cpu"].append((cpu_ns([process.pid]) - before) / COUNT / 1000)
            rates["single direct"].append(direct(server, "single", "single", SINGLES))
            rates["single"].append(singles(port))
        bench.stop(process)
        for i in range(min(options.rounds, 3)):  # a group of its own each time
            rates["consume direct"].append(direct(server, "bulk", "consume", COUNT))
            rate, cpu = consume(bench, server, resources, i)
            rates["consume"].append(rate)
            rates["consume cpu"].append(cpu)
    finally:
        bench.close()
        server.close()
    median = {name: statistics.median(values) for name, values in rates.items()}
    table(["Kafka, %d bytes, one broker, 3 partitions" % BYTES, "librdkafka", "through the sidecar", "ratio", "CPU of the sidecar"],
          [["published in bulk (gRPC, %d together), a second" % ENTRIES, "%.0f" % median["bulk direct"], "%.0f" % median["bulk"],
            "%.2f" % (median["bulk"] / median["bulk direct"]), "%.2f µs" % median["cpu"]],
           ["consumed in bulk by a gRPC app (C) and acknowledged, a second", "%.0f" % median["consume direct"],
            "%.0f" % median["consume"], "%.2f" % (median["consume"] / median["consume direct"]), "%.2f µs" % median["consume cpu"]],
           ["one message, HTTP, until confirmed, p50", "%.0f µs" % median["single direct"], "%.0f µs" % median["single"],
            "%+.0f µs" % (median["single"] - median["single direct"]), ""]])
