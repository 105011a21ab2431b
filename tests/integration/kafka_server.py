"""A Kafka of the tests' own, one node in KRaft mode on ports from the kernel, and what kcat says of its data.

Kafka comes from Maven Central by mvn, once (sdk/install.py); without mvn or java its tests are skipped by name. It has
three listeners: plain, SASL without TLS (user alice, by PLAIN and SCRAM), and TLS when it is given certificates."""
import base64
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "sdk"))
import install  # noqa: E402
from harness import Port, Relay, component, wait_for  # noqa: E402

START_S = 120  # only ends a hopeless wait
JAVA = ["java", "-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
        "-Djava.awt.headless=true"]
USER, PASSWORD = "alice", "alice-secret"


@functools.lru_cache(maxsize=None)
def class_path():
    return install.jars("kafka", os.path.join(HERE, "kafka", "pom.xml"))


@functools.lru_cache(maxsize=None)
def missing():
    """Why Kafka cannot be had here, or None."""
    try:
        class_path()
    except install.Unavailable as why:
        return "Kafka: %s" % why
    return None


def scram(name):
    return "%s=[name=%s,password=%s]" % (name, USER, PASSWORD)


class KafkaServer:
    """tls: None, or (PEM of key and certificates, PEM of the authorities). The ports stay ours while it is down.
    is_relayed: clients come to the plain listener by way of self.relay, which can cut their connections. options: more
    of server.properties."""

    def __init__(self, tls=None, partitions=3, is_relayed=False, options=None):
        why = missing()
        if why:
            raise unittest.SkipTest(why)
        self.dir = tempfile.mkdtemp(prefix="outrigger-kafka-")
        self.ports = {name: Port() for name in ("PLAIN", "SASL", "TLS", "CONTROLLER")}
        self.relay = Relay(self.ports["PLAIN"].number) if is_relayed else None
        self.tls, self.partitions, self.options, self.process = tls, partitions, options or {}, None
        self.properties = os.path.join(self.dir, "server.properties")
        self.configure()
        self.format()
        self.start()

    def host(self, listener="PLAIN"):
        return "127.0.0.1:%d" % self.ports[listener].number

    def advertised(self, listener="PLAIN"):
        return "127.0.0.1:%d" % self.relay.number if self.relay and listener == "PLAIN" else self.host(listener)

    def configure(self):
        listeners = ["PLAIN", "SASL"] + (["TLS"] if self.tls else [])
        login = "org.apache.kafka.common.security.%s required"
        options = {
            "process.roles": "broker,controller", "node.id": "1", "log.dirs": os.path.join(self.dir, "data"),
            "controller.quorum.voters": "1@" + self.host("CONTROLLER"), "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": ",".join("%s://%s" % (name, self.host(name)) for name in listeners + ["CONTROLLER"]),
            "advertised.listeners": ",".join("%s://%s" % (name, self.advertised(name)) for name in listeners),
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl.plain.sasl.jaas.config": login % "plain.PlainLoginModule" + ' user_%s="%s";' % (USER, PASSWORD),
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": login % "scram.ScramLoginModule" + ";",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": login % "scram.ScramLoginModule" + ";",
            "num.partitions": str(self.partitions), "offsets.topic.num.partitions": "3",
            "offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000", "log.cleaner.enable": "false",
        }
        if self.tls:
            key, authorities = self.tls
            options.update({"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM", "ssl.keystore.location": key,
                            "ssl.truststore.location": authorities, "ssl.client.auth": "required"})
        options.update(self.options)
        with open(self.properties, "w") as file:
            file.writelines("%s=%s\n" % pair for pair in options.items())

    def java(self, main, *args):
        return [*JAVA, "-cp", class_path(), main, *args]

    def format(self):
        id_ = "K" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # never an option
        subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", id_, "-c", self.properties, "--add-scram",
                                 scram("SCRAM-SHA-256"), "--add-scram", scram("SCRAM-SHA-512")),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=START_S)

    def start(self):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(self.java("kafka.Kafka", self.properties), stdout=log, stderr=log)
        wait_for("Kafka", self.is_up, START_S)

    def is_up(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.dir, "log")) as file:
                raise AssertionError("Kafka ended:\n" + file.read()[-3000:])
        socket.create_connection(("127.0.0.1", self.ports["PLAIN"].number), 5).close()
        return True

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)
        self.process.wait()

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        if self.relay:
            self.relay.close()
        for port in self.ports.values():
            port.release()
        shutil.rmtree(self.dir, ignore_errors=True)

    def console(self, topic, count):
        """What Kafka's own console consumer prints of count records: "Partition:0<tab>k:v,...<tab>key<tab>value" each."""
        done = subprocess.run(self.java("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", self.host(), "--topic", topic,
                                        "--from-beginning", "--max-messages", str(count), "--timeout-ms", str(START_S * 1000),
                                        *(a for p in ("partition", "headers", "key") for a in ("--property", "print.%s=true" % p))),
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=START_S, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def groups(self, group):
        """{topic: {partition: committed offset}}, as kafka-consumer-groups has it."""
        done = subprocess.run(self.java("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", self.host(),
                                        "--describe", "--offsets", "--group", group),
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=START_S, check=True)
        found = {}
        for columns in (line.split() for line in done.stdout.splitlines()):
            if len(columns) > 4 and columns[0] == group and columns[3].isdigit():
                found.setdefault(columns[1], {})[int(columns[2])] = int(columns[3])
        return found

    def component(self, name="ps", type_="pubsub.kafka", listener="PLAIN", **metadata):
        return component(name, type_, {"brokers": self.advertised(listener), "authType": "none", "initialOffset": "oldest",
                                       "consumeRetryInterval": "100ms", **metadata})

    # ------------------------------------------------------------ kcat
    def kcat(self, *args, data=None):
        done = subprocess.run(["kcat", "-b", self.host(), *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=START_S)
        if done.returncode:
            raise AssertionError("kcat %s: %s" % (" ".join(args), done.stderr.decode()))
        return done.stdout.decode()

    def records(self, topic):
        """What is in it: topic, partition, offset, key, payload, headers."""
        return [json.loads(line) for line in self.kcat("-C", "-t", topic, "-e", "-J", "-q").splitlines()]

    def produce(self, topic, *lines, partition=None, key=None, headers=()):
        args = ["-P", "-t", topic] + (["-p", str(partition)] if partition is not None else [])
        args += ["-k", key] if key else []
        for name, value in headers:
            args += ["-H", "%s=%s" % (name, value)]
        self.kcat(*args, data="\n".join(lines).encode() + b"\n")


needs_kcat = unittest.skipUnless(shutil.which("kcat"), "kcat is not here")
