"""What a sidecar does when there is too much: rate limits and adaptive concurrency of the called side, over HTTP and gRPC.
How limits are found and how queues are served is in tests/unit and tests/sim; here is that real calls meet them."""
import socket
import threading

import h2raw
from harness import Case, Client, Reply, tag, wait_for
from test_invoke_grpc import SERVICE, request

POLICY = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: %s}
spec:
  inbound: %s
"""
STATIC = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: places}
spec: {nameResolution: {component: static, configuration: {callee: "127.0.0.1:%d"}}}
"""
GET = 1  # dapr.proto.common.v1.HTTPExtension.Verb


def rates(*limits):
    return POLICY % ("rates", "{rateLimits: [%s]}" % ", ".join(limits))


class RateLimits(Case):
    def callee(self, *limits, **more):
        return self.sidecar("callee", self.app(), resources={"t.yaml": rates(*limits)}, **more)

    def assertLimited(self, answer):
        self.assertEqual(answer.status, 429, answer)
        self.assertEqual(answer.header("outrigger-reason"), "rate_limited")
        self.assertGreater(int(answer.header("retry-after")), 0)

    @tag("debug", "tsan")
    def test_who_had_his_share_is_told_when_to_come_back(self):
        """Three at once and one an hour, over all loops; of peers and of the app itself."""
        b = self.callee("{name: few, requests: 1, interval: 1h, burst: 3}", env={"OUTRIGGER_LOOPS": "3"})
        a = self.sidecar("caller")
        self.assertEqual([a.invoke("callee", "x").status for _ in range(3)], [200] * 3)
        for answer in (a.invoke("callee", "x"), a.invoke("callee", "x", "POST", [], b"body"), b.invoke("callee", "x")):
            self.assertLimited(answer)
            self.assertIn(int(answer.header("retry-after")), range(3500, 3601))
        self.assertEqual(len(b.app.seen()), 3)
        self.assertRegex(b.metrics(), r'outrigger_rate_limited_total\{app_id="callee",limit="few"\} 3\n')

    @tag("debug")
    def test_over_grpc_it_is_resource_exhausted(self):
        server = h2raw.Server(lambda peer: [peer.respond(peer.until_request(timeout_s=600).id, None, status=12) for _ in range(9)])
        self.addCleanup(server.close)
        b = self.sidecar("callee", server.port, resources={"t.yaml": rates("{requests: 1, interval: 24h}")}, flags=["--app-protocol", "grpc"])
        a = self.sidecar("caller")
        self.assertEqual(a.invoke("callee", "x").status, 501)  # as the app says
        for sidecar in (a, b):  # of a peer and of the app itself
            self.assertIn(int(sidecar.invoke("callee", "x").header("retry-after") or 0), range(86000, 86401))
            peer = h2raw.Peer(port=sidecar.ports["grpc"].number)
            self.addCleanup(peer.close)
            for stream in (peer.call(SERVICE, request("callee", "m", b"", GET)), peer.call("/some.Service/Method", b"", [("dapr-app-id", "callee")])):
                self.assertEqual(stream.status, 8)
                self.assertEqual(stream.header("outrigger-reason"), "rate_limited")
                self.assertIn(int(stream.header("grpc-retry-pushback-ms") or 0), range(86000 * 1000, 86400 * 1000 + 1))

    @tag("debug")
    def test_each_has_its_own_share(self):
        once = "requests: 1, interval: 1h"
        self.callee("{name: who, per: identity, %s, match: [{path: {prefix: /who}}]}" % once,
                    "{name: key, per: 'header:X-Key', %s, match: [{path: {prefix: /key}}]}" % once,
                    "{name: post, %s, match: [{path: {exact: /post}, methods: [POST]}]}" % once)
        a, c = self.sidecar("caller"), self.sidecar("other")
        self.assertEqual(a.invoke("callee", "who").status, 200)
        self.assertEqual(c.invoke("callee", "who").status, 200)
        self.assertLimited(a.invoke("callee", "who"))
        self.assertEqual([a.invoke("callee", "key", headers=[("x-key", k)]).status for k in ("1", "2")], [200, 200])
        self.assertLimited(c.invoke("callee", "key", headers=[("X-KEY", "1")]))
        self.assertEqual(a.invoke("callee", "key").status, 200)
        self.assertLimited(a.invoke("callee", "key"))
        self.assertEqual(a.invoke("callee", "post", "POST").status, 200)
        self.assertLimited(a.invoke("callee", "post", "POST"))
        self.assertEqual([a.invoke("callee", "post").status for _ in range(3)], [200] * 3)

    @tag("debug")
    def test_a_limit_that_stays_as_it_is_is_not_forgotten_by_a_reload(self):
        few = "{name: few, requests: 1, interval: 1h}"
        b = self.callee(few)
        a = self.sidecar("caller")
        self.assertEqual(a.invoke("callee", "x").status, 200)
        b.write("t.yaml", rates(few, "{name: none, requests: 1, interval: 1h, match: [{path: {exact: /y}}]}"))

        def is_changed():
            return a.invoke("callee", "y").status == 429
        wait_for("the new limit", is_changed)
        self.assertLimited(a.invoke("callee", "x"))
        b.write("t.yaml", rates("{name: few, requests: 2, interval: 1h}"))
        wait_for("another limit", lambda: a.invoke("callee", "x").status == 200)
        b.remove("t.yaml")
        wait_for("none", lambda: all(a.invoke("callee", "x").status == 200 for _ in range(4)))


class Blocking(Case):
    """An app that answers when it is told to."""

    def blocking_app(self):
        self.gates = {}

        def answer(r):
            self.gates.setdefault(r.path, threading.Event()).wait(60)
            return Reply(200, r.path.encode())
        app = self.app(answer)
        self.addCleanup(lambda: [g.set() for g in list(self.gates.values())])
        return app

    def start(self, sidecar, path):
        """An invocation of its own thread; its answer is in the list."""
        got = []
        thread = threading.Thread(target=lambda: got.append(sidecar.invoke("callee", path)), daemon=True)
        thread.start()
        self.addCleanup(thread.join, 60)
        return got

    def open(self, path):
        wait_for("the app to have " + path, lambda: self.gates.get(path))
        self.gates[path].set()


class Concurrency(Blocking):
    """Limits that cannot move."""

    def blocking(self, spec, **more):
        return self.sidecar("callee", self.blocking_app(),
                            resources={"t.yaml": POLICY % ("gate", "{concurrency: {%s}}" % spec)}, **more)

    @tag("debug", "tsan")
    def test_calls_wait_for_a_place_and_what_is_too_much_is_refused_at_once(self):
        b = self.blocking("min: 2, max: 2, initial: 2, queue: 1, interval: 60s, target: 60s", env={"OUTRIGGER_LOOPS": "2"})
        a = self.sidecar("caller")
        first = [self.start(a, "1"), self.start(b, "2")]
        wait_for("both in the app", lambda: len(b.app.seen()) == 2)
        # of three more one waits, whichever
        more = [self.start(a, "3"), self.start(a, "4"), self.start(b, "5")]
        wait_for("two refusals", lambda: sum(len(m) for m in more) == 2)
        for answer in (m[0] for m in more if m):
            self.assertEqual(answer.status, 503, answer)
            self.assertEqual(answer.header("outrigger-reason"), "overloaded")
        self.assertEqual(len(b.app.seen()), 2)
        peer = h2raw.Peer(port=a.ports["grpc"].number)
        self.addCleanup(peer.close)
        self.assertEqual(peer.call(SERVICE, request("callee", "m", b"", GET)).status, 14)
        self.open("/1")
        wait_for("its answer", lambda: first[0])
        wait_for("the one that waited", lambda: len(b.app.seen()) == 3)
        for path in ("/2", b.app.seen()[2].path):
            self.open(path)
        wait_for("all answers", lambda: first[1] and all(more))
        self.assertEqual(sorted(m[0].status for m in more), [200, 503, 503])
        self.assertRegex(b.metrics(), r'outrigger_inbound_waits_total\{app_id="callee",outcome="let_in"\} 1\n')
        self.assertRegex(b.metrics(), r'outrigger_inbound_waits_total\{app_id="callee",outcome="queue_full"\} 3\n')

    @tag("debug")
    def test_priority_paths_go_first(self):
        b = self.blocking("min: 1, max: 1, initial: 1, queue: 2, interval: 60s, target: 60s, priorityPaths: [/health]")
        a = self.sidecar("caller")
        first = self.start(a, "1")
        wait_for("it in the app", lambda: b.app.seen())
        ordinary = [self.start(a, str(n)) for n in (2, 3, 4)]
        wait_for("one too many", lambda: any(ordinary))
        urgent = self.start(b, "health/now")
        wait_for("another one to make room", lambda: sum(len(o) for o in ordinary) == 2)
        self.assertEqual(len(b.app.seen()), 1)
        self.open("/1")
        wait_for("the next one", lambda: len(b.app.seen()) == 2)
        self.assertEqual(b.app.seen()[1].path, "/health/now")
        self.open("/health/now")
        wait_for("the last one", lambda: len(b.app.seen()) == 3)
        self.open(b.app.seen()[2].path)
        wait_for("all answers", lambda: first and urgent and all(ordinary))
        self.assertEqual(sorted(o[0].status for o in ordinary), [200, 503, 503])

    @tag("debug")
    def test_who_leaves_or_is_late_leaves_the_queue(self):
        b = self.blocking("min: 1, max: 1, initial: 1, queue: 10, interval: 60s, target: 60s")
        a = self.sidecar("caller")
        first = self.start(a, "1")
        wait_for("it in the app", lambda: b.app.seen())
        late = a.invoke("callee", "2", headers=[("outrigger-timeout", "50m")])
        self.assertEqual(late.status, 504, late)
        last = self.start(a, "3")
        self.open("/1")
        wait_for("the last one", lambda: len(b.app.seen()) == 2)
        self.assertEqual(b.app.seen()[1].path, "/3")
        self.open("/3")
        wait_for("both answers", lambda: first and last)
        self.assertEqual(last[0].status, 200)

    @tag("debug")
    def test_who_has_waited_too_long_is_refused(self):
        b = self.blocking("min: 1, max: 1, initial: 1, queue: 10, interval: 50ms")
        a = self.sidecar("caller")
        first = self.start(a, "1")
        wait_for("it in the app", lambda: b.app.seen())
        answer = a.invoke("callee", "2")
        self.assertEqual((answer.status, answer.header("outrigger-reason")), (503, "overloaded"), answer)
        b.remove("t.yaml")  # no limit any more, with a call that is in hand
        b.wait_log("resources reloaded")
        last = self.start(a, "3")
        wait_for("it in the app", lambda: b.app.seen("/3"))
        self.open("/1")
        self.open("/3")
        wait_for("both answers", lambda: first and last)
        self.assertEqual((first[0].status, last[0].status), (200, 200))

    @tag("debug")
    def test_what_the_app_does_it_does_for_callers_who_still_wait(self):
        """Five times what four workers can do, from callers who wait for 250 ms. Without a limit most of what the
        app does comes too late (a fifth is in time); how much it does is the machine's affair and not looked at."""
        workers, takes_s, times = 4, 0.04, 5
        free, lock, done, in_time, over = threading.Semaphore(workers), threading.Lock(), [0], [0], threading.Event()

        def answer(_):
            with free:
                over.wait(takes_s)
                with lock:
                    done[0] += 1
                return Reply(200, b"done")
        b = self.sidecar("callee", self.app(answer), resources={"t.yaml": POLICY % ("gate", "{concurrency: {}}")},
                         env={"OUTRIGGER_LOOPS": "2"})
        a = self.sidecar("caller")

        def call_on():
            with Client(a.http) as client:
                while not over.is_set():
                    status = client.call("GET", "/v1.0/invoke/callee/method/x", [("outrigger-timeout", "250m")]).status
                    with lock:
                        in_time[0] += status == 200
                    if status != 200:
                        over.wait(0.1)
        threads = [threading.Thread(target=call_on, daemon=True) for _ in range(workers * times * 2)]
        for thread in threads:
            thread.start()
        wait_for("the limit to be found", lambda: done[0] > 150)
        with lock:
            before = done[0], in_time[0]
        wait_for("much work", lambda: done[0] > before[0] + 250)
        with lock:
            share = (in_time[0] - before[1]) / (done[0] - before[0])
        metrics = b.metrics()
        over.set()
        for thread in threads:
            thread.join(60)
        self.assertGreater(share, 0.9)
        self.assertRegex(metrics, r'outrigger_inbound_waits_total\{app_id="callee",outcome="refused"\} [1-9]')
        self.assertRegex(metrics, r'outrigger_inbound_concurrency_limit\{app_id="callee"\} [1-9]')


class Bulkheads(Blocking):
    LIMITS = POLICY.replace("inbound", "limits")

    def assertFull(self, answer):
        self.assertEqual((answer.status, answer.header("outrigger-reason")), (503, "bulkhead_full"), answer)

    @tag("debug", "tsan")
    def test_a_callee_that_hangs_takes_no_more_calls_than_its_limit(self):
        """Over all loops; another callee has limits of its own."""
        b = self.sidecar("callee", self.blocking_app())
        self.sidecar("other", self.app())
        a = self.sidecar("caller", resources={"t.yaml": self.LIMITS % ("l", "{requests: 2}")}, env={"OUTRIGGER_LOOPS": "3"})
        held = [self.start(a, "1"), self.start(a, "2")]
        wait_for("both in the app", lambda: len(b.app.seen()) == 2)
        for _ in range(6):
            self.assertFull(a.invoke("callee", "3"))
        self.assertEqual(a.invoke("other", "x").status, 200)
        peer = h2raw.Peer(port=a.ports["grpc"].number)
        self.addCleanup(peer.close)
        self.assertEqual(peer.call(SERVICE, request("callee", "m", b"", GET)).status, 14)
        stream = peer.call("/some.Service/Method", b"", [("dapr-app-id", "callee")])
        self.assertEqual((stream.status, stream.header("outrigger-reason")), (14, "bulkhead_full"))
        self.assertEqual(len(b.app.seen()), 2)
        self.assertRegex(a.metrics(), r'outrigger_bulkhead_full_total\{app_id="caller",limit="requests",target="callee"\} 8\n')
        self.assertNotIn("outrigger_ejections_total", a.metrics())
        a.write("t.yaml", self.LIMITS % ("l", "{requests: 3}"))
        a.wait_log("resources reloaded")
        held.append(self.start(a, "3"))
        wait_for("the third one", lambda: len(b.app.seen()) == 3)
        for path in ("/1", "/2", "/3"):
            self.open(path)
        wait_for("all answers", lambda: all(held))
        self.gates["/4"] = threading.Event()
        self.gates["/4"].set()
        self.assertEqual([a.invoke("callee", "4").status for _ in range(4)], [200] * 4)

    @tag("debug")
    def test_calls_without_a_connection_have_a_limit(self):
        """Somebody listens at the callee's place, and says nothing."""
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        config = STATIC % silent.getsockname()[1]
        a = self.sidecar("caller", resources={"t.yaml": self.LIMITS % ("l", "{pending: 1}")}, config=config)
        waits = self.start(a, "1")
        peer, _ = silent.accept()
        self.addCleanup(peer.close)
        self.assertFull(a.invoke("callee", "2"))
        self.assertRegex(a.metrics(), r'outrigger_bulkhead_full_total\{app_id="caller",limit="pending",target="callee"\} 1\n')
        peer.close()
        silent.close()
        wait_for("its failure", lambda: waits)
        self.assertEqual(waits[0].status, 500, waits[0])

    @tag("debug")
    def test_connections_have_a_limit(self):
        """Two instances and one connection: who is drawn second has none."""
        for _ in range(2):
            self.sidecar("callee", self.app())
        a = self.sidecar("caller", resources={"t.yaml": self.LIMITS % ("l", "{connections: 1}")})
        answers = []

        def are_both_drawn():
            answers.append(a.invoke("callee", "x"))
            return len({x.status for x in answers}) == 2
        wait_for("one that is let in and one that is not", are_both_drawn)
        full = [x for x in answers if x.status != 200]
        for answer in full:
            self.assertFull(answer)
        self.assertRegex(a.metrics(), r'outrigger_bulkhead_full_total\{app_id="caller",limit="connections",target="callee"\} %d\n' % len(full))
        self.assertNotIn("outrigger_ejections_total", a.metrics())
