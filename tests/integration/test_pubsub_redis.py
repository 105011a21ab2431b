"""pubsub.redis and its client on a real redis-server: logins, TLS, restarts, Sentinel, what redis-cli says."""
import collections
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading

import grpc_client
from crash_app import CrashApp
from grpc_client import needs_grpc
from harness import BIN, Case, Port, Reply, component, tag, wait_for
from pki import Pki
from redis_server import RedisServer, needs_redis
from test_pubsub import subscription

WAIT_S = 60  # only ends a hopeless wait
SUBSCRIPTION = [{"pubsubname": "ps", "topic": "t", "route": "/t"}]


def redis(server, name="ps", block="pubsub", **metadata):
    return component(name, block + ".redis", {"redisHost": server if isinstance(server, str) else server.host, **metadata})


class Seen:
    """An app that counts the numbers it is told; answer(n, times) may say something else than 200."""

    def __init__(self, case, answer=None):
        self.counts, self.lock, self.answer = collections.Counter(), threading.Lock(), answer
        self.app = case.app(self.handle, subscriptions=SUBSCRIPTION)

    def handle(self, request):
        data = request.json.get("data")  # others' messages may have none
        n = data["n"] if isinstance(data, dict) else None
        with self.lock:
            self.counts[n] += 1
            times = self.counts[n]
        return (self.answer(n, times) if self.answer else None) or Reply(200, b"")

    def wait(self, numbers, times=1):
        wait_for("messages", lambda: all(self.counts[n] >= times for n in numbers), WAIT_S)


def pending(server, stream="t", group="app"):
    """[id, consumer, idle, deliveries] of what is not acknowledged."""
    try:
        return server.command("XPENDING", stream, group, "-", "+", 1000)
    except (RuntimeError, OSError, EOFError):
        return None


@needs_redis
class PubSub(Case):
    def publish(self, sidecar, *numbers, topic="t"):
        for n in numbers:
            answer = sidecar.publish("ps", topic, {"n": n})
            self.assertEqual(answer.status, 204, answer.body)

    def publish_again_and_again(self, sidecar, n):
        wait_for("a publish that works", lambda: sidecar.publish("ps", "t", {"n": n}).status == 204, WAIT_S)

    def readers(self, server):
        return len(re.findall("cmd=(?:xreadgroup|xpending) ", server.command("CLIENT", "LIST")))

    def subscriber(self, seen, resources, **more):
        sidecar = self.sidecar("app", seen.app, resources={"ps.yaml": resources}, **more)
        sidecar.wait_log('msg="subscribed"', 1, WAIT_S)
        return sidecar

    @tag("debug", "tsan")
    def test_nothing_is_pending_when_all_is_acknowledged(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server))
        self.publish(sidecar, *range(50))
        seen.wait(range(50))
        wait_for("acknowledgements", lambda: pending(server) == [], WAIT_S)
        self.assertEqual(server.command("XLEN", "t"), 50)
        self.assertEqual(server.cli("XINFO", "CONSUMERS", "t", "app").split("\n")[:2], ["name", "app"])

    @needs_grpc
    @tag("debug")
    def test_metadata_that_grow_as_json(self):
        """Six times as long in the stream as in the request."""
        server = RedisServer(self)
        sidecar = self.sidecar("app", resources={"ps.yaml": redis(server)})
        with grpc_client.Client(sidecar.grpc) as client:
            answer = client.call("Dapr/PublishEvent", {"pubsub_name": "ps", "topic": "t", "data": b"x",
                                                       "metadata": {"m": "\x01" * (2 << 20)}})
        self.assertEqual(answer.code, "OK")
        self.assertEqual(server.command("XLEN", "t"), 1)

    @tag("debug")
    def test_refused_ones_stay_pending_and_are_counted(self):
        server = RedisServer(self)
        seen = Seen(self, lambda n, times: Reply(500) if times < 3 else None)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="100ms", processingTimeout="300ms"))
        self.publish(sidecar, 1)
        wait_for("a second delivery", lambda: any(row[3] >= 2 for row in pending(server) or []), WAIT_S)
        seen.wait([1], 3)
        wait_for("the acknowledgement", lambda: pending(server) == [], WAIT_S)

    def test_never_means_never(self):
        """redeliverInterval 0: what was refused is kept, and not given out again."""
        server = RedisServer(self)
        seen = Seen(self, lambda n, times: Reply(500) if n == 1 else None)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="0", processingTimeout="0"))
        self.publish(sidecar, 1, 2)
        seen.wait([1, 2])
        wait_for("one that is left", lambda: len(pending(server)) == 1, WAIT_S)
        self.publish(sidecar, *range(3, 30))
        seen.wait(range(3, 30))
        self.assertEqual((seen.counts[1], len(pending(server))), (1, 1))

    @tag("debug")
    def test_6_an_app_in_a_debugger_keeps_its_message(self):
        """Longer than processingTimeout: it is claimed anew, and a second sidecar does not get it."""
        server, go_on = RedisServer(self), threading.Event()
        seen = Seen(self, lambda n, times: go_on.wait(WAIT_S) and None if n == 1 else None)
        other = Seen(self)
        metadata = {"redeliverInterval": "50ms", "processingTimeout": "12s"}  # so long may a sidecar be kept from running
        sidecar = self.subscriber(seen, redis(server, **metadata))
        self.publish(sidecar, 1)
        seen.wait([1])
        self.subscriber(other, redis(server, **metadata))
        renewals, before = 0, 0
        while renewals < 4:  # each is a third of the time after which it would be lost
            rows = pending(server)
            self.assertEqual(len(rows), 1)
            renewals += rows[0][2] < before
            before = rows[0][2]
        go_on.set()
        wait_for("the acknowledgement", lambda: pending(server) == [], WAIT_S)
        self.assertEqual((seen.counts[1], other.counts[1]), (1, 0))

    @tag("debug")
    def test_7_restarts_leave_one_consumer_on_one_connection(self):
        server = RedisServer(self, durable=True)
        seen = Seen(self)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="200ms", processingTimeout="500ms"))
        for n in range(4):
            self.publish_again_and_again(sidecar, n)
            seen.wait([n])
            server.kill()
            server.start()
        self.publish_again_and_again(sidecar, 4)
        seen.wait(range(5))
        self.assertEqual([row[1] for row in server.command("XINFO", "CONSUMERS", "t", "app")], ["app"])
        self.assertRegex(sidecar.metrics(), r'outrigger_redis_away_total\{.*component="ps".*\} [1-9]')
        # between two reads it looks through what is pending
        wait_for("one reader", lambda: self.readers(server) == 1, WAIT_S)

    @tag("debug")
    def test_deleted_data_make_the_group_anew(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server))
        for n in range(3):
            self.publish(sidecar, n)
            seen.wait([n])
            server.command("FLUSHALL")
        self.publish(sidecar, 3)
        seen.wait([3])

    def test_a_server_that_forgot_all_gets_the_group_anew(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server))
        for n in range(3):
            self.publish_again_and_again(sidecar, n)
            seen.wait([n])
            server.kill()
            server.start()
        self.publish_again_and_again(sidecar, 3)
        seen.wait([3])

    def test_what_was_trimmed_is_pending_no_more(self):
        server, refuse = RedisServer(self), [True]
        seen = Seen(self, lambda n, times: Reply(500) if refuse[0] else None)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="100ms", processingTimeout="200ms"))
        self.publish(sidecar, *range(3))
        seen.wait(range(3))
        server.command("XTRIM", "t", "MAXLEN", "0")
        wait_for("an empty list", lambda: pending(server) == [], WAIT_S)
        refuse[0] = False
        self.publish(sidecar, 3)
        seen.wait([3])

    @tag("debug")
    def test_what_another_consumer_left_is_taken_over(self):
        """A consumer of another name read and died; one that reads by itself gets what comes next, and only that."""
        server, seen = RedisServer(self), Seen(self)
        server.command("XGROUP", "CREATE", "t", "app", "0", "MKSTREAM")
        publisher = self.sidecar("publisher", resources={"ps.yaml": redis(server)})
        self.publish(publisher, *range(250))
        self.assertEqual(len(server.command("XREADGROUP", "GROUP", "app", "other", "COUNT", "240", "STREAMS", "t", ">")[0][1]), 240)
        self.subscriber(seen, redis(server, redeliverInterval="100ms", processingTimeout="200ms"))
        seen.wait(range(250))
        wait_for("acknowledgements", lambda: pending(server) == [], WAIT_S)
        self.assertEqual(set(seen.counts.values()), {1})

    def test_streams_are_trimmed(self):
        server = RedisServer(self)
        sidecar = self.sidecar("app", resources={"ps.yaml": redis(server, maxLenApprox="100"), "old.yaml": redis(server, "old", streamTTL="1ms")})
        for n in range(600):
            self.publish(sidecar, n)
        self.assertLess(server.command("XLEN", "t"), 400)
        for n in range(600):
            self.assertEqual(sidecar.publish("old", "u", {"n": n}).status, 204)
        self.assertLess(server.command("XLEN", "u"), 400)

    @tag("debug")
    def test_poison(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="100ms", processingTimeout="200ms"))
        for fields in (["data", "not json"], ["data", b"\0\xff"], ["other", "x"], ["data", "{}", "metadata", "[1"], ["data", "x" * 10000000]):
            server.command("XADD", "t", "*", *fields)
        self.publish(sidecar, *range(20))
        seen.wait(range(20))
        self.assertEqual(sidecar.health(), 204)

    def test_a_message_that_is_too_large_stays_pending_and_stops_nothing(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server, redeliverInterval="100ms", processingTimeout="200ms"))
        large = server.command("XADD", "t", "*", "data", b"x" * (65 << 20))
        self.publish(sidecar, *range(5))
        sidecar.wait_log("too large to be read", 1, WAIT_S)
        seen.wait(range(5))
        wait_for("the others' acknowledgement", lambda: [row[0] for row in pending(server)] == [large], WAIT_S)
        tries = pending(server)[0][3]
        self.publish(sidecar, *range(5, 10))
        seen.wait(range(5, 10))
        self.assertEqual(pending(server)[0][3], tries)  # it is not claimed over and over
        self.assertEqual(sidecar.log().count("too large to be read"), 1)

    def test_a_key_that_is_no_stream_names_itself(self):
        server, seen = RedisServer(self), Seen(self)
        server.command("SET", "t", "x")
        sidecar = self.subscriber(seen, redis(server))
        sidecar.wait_log("WRONGTYPE", 1, WAIT_S)
        answer = sidecar.publish("ps", "t", {"n": 1})
        self.assertEqual(answer.status, 500)
        self.assertIn("WRONGTYPE", answer.json["message"])
        server.command("DEL", "t")
        self.publish(sidecar, 2)
        seen.wait([2])

    # ---- the way to the server
    @tag("debug", "tsan")
    def test_acl_user_database_and_unix_socket(self):
        path = self.path("r.sock")
        server, seen = RedisServer(self, "--unixsocket", path), Seen(self)
        server.command("ACL", "SETUSER", "ann", "on", ">pa ss", "~*", "&*", "+@all")
        server.command("CONFIG", "SET", "requirepass", "nobody knows")
        login = {"redisUsername": "ann", "redisPassword": "pa ss", "redisDB": "3"}
        sidecar = self.subscriber(seen, redis("unix:" + path, **login))
        self.publish(sidecar, 1)
        seen.wait([1])
        wrong = self.sidecar("wrong", is_ready=False, resources={"ps.yaml": redis(server, redisUsername="ann", redisPassword="no")})
        self.assertNotEqual(wrong.wait_exit(WAIT_S), 0)
        self.assertRegex(wrong.log(), r"component ps \(pubsub.redis/v1.*redisPassword: WRONGPASS")
        wrong = self.sidecar("wrong", is_ready=False, resources={"ps.yaml": redis(server, **{**login, "redisDB": "99"})})
        self.assertNotEqual(wrong.wait_exit(WAIT_S), 0)
        self.assertIn("redisDB: ERR DB index is out of range", wrong.log())
        wrong = self.sidecar("wrong", is_ready=False, resources={"ps.yaml": redis(server)})
        self.assertNotEqual(wrong.wait_exit(WAIT_S), 0)
        self.assertRegex(wrong.log(), r"component ps \(pubsub.redis/v1.*redisPassword: NOAUTH")

    @tag("debug")
    def test_a_user_who_may_do_no_more_than_it_takes(self):
        """No PING, no CLIENT: a read that waits is then ended with its connection."""
        server, seen = RedisServer(self), Seen(self)
        server.command("ACL", "SETUSER", "least", "on", ">pw", "~t", "-@all",
                       *("+" + c for c in "auth xadd xgroup|create xreadgroup xack xclaim xpending".split()))
        sidecar = self.subscriber(seen, redis(server, redisUsername="least", redisPassword="pw"))
        self.publish(sidecar, *range(20))
        seen.wait(range(20))
        refused = sidecar.publish("ps", "other", {"n": 1})
        self.assertEqual(refused.status, 500)
        self.assertIn("NOPERM", refused.json["message"])
        self.assertEqual(sidecar.stop(), 0)
        wait_for("acknowledgements", lambda: pending(server) == [], WAIT_S)

    @tag("debug")
    def test_tls_with_client_certificates(self):
        pki, tls, seen = Pki(self.path("pki")), Port(), Seen(self)
        chain, key = pki.leaf("IP:127.0.0.1")
        tls.release()
        server = RedisServer(self, "--tls-port", str(tls.number), "--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file",
                             pki.path("ca.crt"), "--tls-auth-clients", "yes")
        host, env = "127.0.0.1:%d" % tls.number, {"SSL_CERT_FILE": pki.path("ca.crt")}
        with_tls = {"enableTLS": "true", "clientCert": chain, "clientKey": key}
        sidecar = self.subscriber(seen, redis(host, **with_tls), env=env)
        self.publish(sidecar, *range(20))
        seen.wait(range(20))
        for metadata, environment in (({**with_tls, "clientCert": "", "clientKey": ""}, env), (with_tls, {})):
            wrong = self.sidecar("wrong", is_ready=False, env=environment, resources={
                "ps.yaml": redis(host, **metadata).replace("spec:\n", "spec:\n  initTimeout: 2s\n")})
            self.assertNotEqual(wrong.wait_exit(WAIT_S), 0)
            self.assertIn("component ps", wrong.log())
        self.assertEqual(server.command("PING"), "PONG")

    @tag("debug")
    def test_a_server_that_never_answers_hurts_nobody_else(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(100)
            server, seen = RedisServer(self), Seen(self)
            dumb = redis("127.0.0.1:%d" % silent.getsockname()[1], "dumb").replace("spec:\n", "spec:\n  initTimeout: 1s\n  ignoreErrors: true\n")
            sidecar = self.sidecar("app", seen.app, resources={"ps.yaml": redis(server), "dumb.yaml": dumb})
            sidecar.wait_log('msg="subscribed"', 1, WAIT_S)
            self.assertRegex(sidecar.log(), r"component dumb \(pubsub.redis/v1.*init timeout.*redisHost")
            self.publish(sidecar, 1)
            seen.wait([1])

    @tag("debug")
    def test_a_server_that_falls_silent_fails_calls_and_comes_back(self):
        server, seen = RedisServer(self), Seen(self)
        sidecar = self.subscriber(seen, redis(server, readTimeout="500ms"))
        self.publish(sidecar, 1)
        seen.wait([1])
        server.process.send_signal(signal.SIGSTOP)
        try:
            answer = sidecar.publish("ps", "t", {"n": 2}, timeout_s=WAIT_S)
            self.assertEqual(answer.status, 500)
            self.assertIn(server.host, answer.json["message"])
        finally:
            server.process.send_signal(signal.SIGCONT)
        self.publish_again_and_again(sidecar, 3)
        seen.wait([3])

    def test_sentinel_leads_to_the_new_master(self):
        master, seen = RedisServer(self), Seen(self)
        replica = RedisServer(self, "--replicaof", "127.0.0.1", str(master.port.number))
        wait_for("replication", lambda: "master_link_status:up" in replica.command("INFO", "replication"), WAIT_S)
        sentinel = Port()
        sentinel.release()
        conf = self.path("sentinel.conf")
        with open(conf, "w") as file:
            file.write("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor m 127.0.0.1 %d 1\nsentinel down-after-milliseconds m 500\n"
                       "sentinel failover-timeout m 3000\n" % (sentinel.number, self.dir, master.port.number))
        with open(self.path("sentinel.log"), "ab") as log:
            self.started.append(subprocess.Popen(["redis-server", conf, "--sentinel"], stdout=log, stderr=log))
        metadata = {"failover": "true", "sentinelMasterName": "m", "redeliverInterval": "200ms", "processingTimeout": "500ms"}
        sidecar = self.subscriber(seen, redis("127.0.0.1:%d" % sentinel.number, **metadata))
        self.publish(sidecar, 1)
        seen.wait([1])
        wait_for("a known replica", lambda: "slave0:" in master.command("INFO", "replication"), WAIT_S)
        master.kill()
        self.publish_again_and_again(sidecar, 2)
        seen.wait([2])
        self.assertIn("role:master", replica.command("INFO", "replication"))

    def test_a_cluster_and_slots_that_move(self):
        servers = [RedisServer(self, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf") for _ in range(3)]
        hosts = [s.host for s in servers]
        subprocess.run(["redis-cli", "--cluster", "create", *hosts, "--cluster-yes"], check=True, stdout=subprocess.PIPE, timeout=WAIT_S)
        wait_for("the cluster", lambda: all("cluster_state:ok" in s.command("CLUSTER", "INFO") for s in servers), WAIT_S)
        topics = ["t%d" % i for i in range(12)]
        counts, lock = collections.Counter(), threading.Lock()

        def handler(request):
            with lock:
                counts[request.path, request.json["data"]["n"]] += 1
            return Reply(200, b"")
        app = self.app(handler, subscriptions=[{"pubsubname": "ps", "topic": t, "route": "/" + t} for t in topics])
        sidecar = self.sidecar("app", app, resources={"ps.yaml": redis(
            hosts[0], redisType="cluster", redeliverInterval="200ms", processingTimeout="1s")})
        for t in topics:
            self.publish(sidecar, 0, topic=t)
        self.assertEqual(sum(s.command("DBSIZE") for s in servers), len(topics))
        self.assertTrue(all(s.command("DBSIZE") for s in servers))
        wait_for("messages", lambda: all(counts["/" + t, 0] for t in topics), WAIT_S)
        ids = [s.command("CLUSTER", "MYID") for s in servers]
        subprocess.run(["redis-cli", "--cluster", "reshard", hosts[0], "--cluster-from", ids[0], "--cluster-to", ids[1], "--cluster-slots",
                        "16384", "--cluster-yes"], check=True, stdout=subprocess.PIPE, timeout=110)
        for t in topics:
            wait_for("a publish", lambda t=t: sidecar.publish("ps", t, {"n": 1}).status == 204, WAIT_S)
        wait_for("messages", lambda: all(counts["/" + t, 1] for t in topics), WAIT_S)
        self.assertEqual(servers[0].command("DBSIZE"), 0)

    # ---- files that change
    @tag("debug")
    def test_reloads_while_messages_flow_lose_none(self):
        """The component and the subscription are changed in turn; who publishes has them changed, too."""
        server, stop, published, failed = RedisServer(self), threading.Event(), [], []
        app, files = self.app(lambda r: Reply(200, b"")), self.path("files")

        def component_of(turn):
            return redis(server, redeliverInterval="100ms", processingTimeout="%dms" % (300 + turn))
        sidecars = [self.sidecar("app", app, resources_dir=files, resources={
            "ps.yaml": component_of(0), "sub.yaml": subscription("t", "/0")}), self.sidecar("publisher", resources_dir=files)]
        sidecars[0].wait_log('msg="subscribed"', 1, WAIT_S)

        def publish():
            for n in itertools.count():
                if stop.is_set():
                    return
                answer = sidecars[1].publish("ps", "t", n, timeout_s=WAIT_S)
                (published if answer.status == 204 else failed).append(n)
        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for turn in range(1, 7):
                reached = len(published) + 20
                wait_for("messages", lambda: len(published) > reached, WAIT_S)
                if turn % 2:
                    sidecars[0].write("sub.yaml", subscription("t", "/%d" % turn))
                    wait_for("messages at the new route", lambda: app.seen("/%d" % turn), WAIT_S)
                else:
                    sidecars[0].write("ps.yaml", component_of(turn))
                    for sidecar in sidecars:
                        sidecar.wait_log("component loaded", 1 + turn // 2, WAIT_S)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(failed, [])
        wait_for("all messages", lambda: {r.json["data"] for r in app.seen()} >= set(published), WAIT_S)
        wait_for("acknowledgements", lambda: pending(server) == [], WAIT_S)
        wait_for("one reader", lambda: self.readers(server) == 1, WAIT_S)

    @tag("debug")
    def test_5_a_dead_letter_that_cannot_be_published_keeps_its_message(self):
        """The server freezes while the app refuses it."""
        server = RedisServer(self)

        def handler(request):
            if request.path == "/t" and len(app.seen("/t")) == 1:
                server.process.send_signal(signal.SIGSTOP)
            return Reply(200 if request.path == "/dead" else 500)
        app = self.app(handler, subscriptions=[{"pubsubname": "ps", "topic": "t", "route": "/t", "deadLetterTopic": "dead"},
                                               {"pubsubname": "ps", "topic": "dead", "route": "/dead"}])
        sidecar = self.sidecar("app", app, resources={"ps.yaml": redis(
            server, readTimeout="500ms", redeliverInterval="100ms", processingTimeout="300ms")})
        sidecar.wait_log('msg="subscribed"', 2, WAIT_S)
        try:
            self.publish(sidecar, 1)
            sidecar.wait_log("dead letter could not be published, the message stays", 1, WAIT_S)
            self.assertEqual((len(app.seen("/t")), app.seen("/dead")), (1, []))
        finally:
            server.process.send_signal(signal.SIGCONT)
        wait_for("its coming again", lambda: len(app.seen("/t")) > 1, WAIT_S)
        wait_for("the dead letter", lambda: app.seen("/dead"), WAIT_S)
        wait_for("acknowledgements", lambda: pending(server) == pending(server, "dead") == [], WAIT_S)

    # ---- modules
    def test_without_its_module_the_type_says_so(self):
        server = RedisServer(self)
        os.makedirs(self.path("moved/bin"))
        shutil.copy(os.path.join(BIN, "outriggerd"), self.path("moved/bin/outriggerd"))
        with open(self.path("ps.yaml"), "w") as file:
            file.write(redis(server))
        os.makedirs(self.path("resources"))
        os.rename(self.path("ps.yaml"), self.path("resources/ps.yaml"))
        command = [self.path("moved/bin/outriggerd"), "--app-id", "x", "--resources-path", self.path("resources"),
                   "--dapr-http-port", "0", "--metrics-port", "0"]
        env = {**os.environ, "OUTRIGGER_RUN_DIR": self.run_dir}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=WAIT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"component ps .*pubsub-redis\.so")
        library = os.path.join(os.path.dirname(BIN), "lib", "outrigger", "pubsub-redis.so")
        os.makedirs(self.path("moved/lib/outrigger"))
        with open(self.path("moved/lib/outrigger/pubsub-redis.so"), "wb") as file:  # as if libhiredis were not installed
            with open(library, "rb") as original:
                file.write(original.read().replace(b"libhiredis.so.0.14", b"libhiredis.so.9.99"))
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=WAIT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"component ps .*Debian package libhiredis0\.14")

    def test_a_component_that_is_reloaded_leaves_no_connection(self):
        server = RedisServer(self)
        sidecar = self.sidecar("app", resources={})
        for _ in range(3):
            sidecar.write("ps.yaml", redis(server))
            self.publish_again_and_again(sidecar, 1)
            sidecar.remove("ps.yaml")
            wait_for("its end", lambda: server.command("CLIENT", "LIST").strip().count("\n") == 0, WAIT_S)
        self.assertEqual(sidecar.stop(), 0)


@needs_redis
class Crash(Case):
    """Numbered messages while the subscriber's sidecar, its app and the server are killed, and connections cut, at
    moments from a seed. The app is a process of its own (crash_app.py), and what it wrote down is what counts.

    Long form, which has more faults, too: OUTRIGGER_CRASH_MESSAGES=50000 OUTRIGGER_CRASH_SEED=1 python3 -m unittest
    test_pubsub_redis.Crash (run.py ends a test after 120 s)."""

    def test_nothing_that_was_acknowledged_is_lost(self):
        count, seed = int(os.environ.get("OUTRIGGER_CRASH_MESSAGES", "1500")), int(os.environ.get("OUTRIGGER_CRASH_SEED", "1"))
        print("     seed %d" % seed, flush=True)
        dice, server = random.Random(seed), RedisServer(self, durable=True)
        metadata = {"redeliverInterval": "300ms", "processingTimeout": "1s"}
        app = CrashApp(self, "ps", "t")
        resources = {"ps.yaml": redis(server, **metadata)}
        publisher = self.sidecar("publisher", resources=resources)
        subscriber = self.sidecar("app", app, resources=resources)
        acknowledged, stop, numbers = [], threading.Event(), itertools.count()

        def publish():
            while len(acknowledged) < count and not stop.is_set():
                n = next(numbers)
                try:
                    if publisher.publish("ps", "t", n, timeout_s=20).status == 204:
                        acknowledged.append(n)
                except (OSError, EOFError, AssertionError):
                    pass

        def kill_server():
            server.kill()
            server.start()

        def kill_subscriber():
            subscriber.kill()
            subscriber.start()

        def kill_app():
            app.restart()

        def cut_connections():
            for line in server.command("CLIENT", "LIST").strip().split("\n"):
                if dice.random() < 0.7:
                    try:
                        server.command("CLIENT", "KILL", "ID", line.split("id=")[1].split(" ")[0])
                    except (RuntimeError, OSError, EOFError):
                        pass
        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        done = collections.Counter()
        faults = [kill_server, kill_subscriber, kill_app, cut_connections] * (3 * max(1, count // 5000))
        dice.shuffle(faults)
        try:
            for i, fault in enumerate(faults):
                at = int(count * (i + dice.random()) / len(faults))
                wait_for("message %d" % at, lambda: len(acknowledged) >= at, WAIT_S)
                fault()
                done[fault.__name__] += 1
            wait_for("all messages", lambda: len(acknowledged) >= count, WAIT_S)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(app.lost(acknowledged, WAIT_S), [])
        print("     seed %d: %d acknowledged, 0 lost, %d came again; %s" % (seed, len(acknowledged), app.twice(), dict(done)), flush=True)
        wait_for("acknowledgements", lambda: pending(server) == [], WAIT_S)
