"""TrafficPolicy, real processes: where calls go by headers, weights, environments and fallbacks, what a fault does, and that changing
all of it costs no call. What a route is chosen by and how evenly, is tested on tables (tests/unit/mesh/test_route, test_routed)."""
import datetime
import os
import subprocess
import threading
import time

import h2raw
from harness import BIN, WAIT_S, Case, Reply, hold, tag, wait_for
from h2raw import message
from test_invoke_grpc import SERVICE, field, request
from test_proxy import GrpcApp, end, head

HEAD = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: %s}
spec:
"""
SUBSETS = "  subsets: [{name: v1, labels: {version: 1}}, {name: v2, labels: {version: 2}}]\n"


def policy(spec, name="traffic"):
    return HEAD % name + spec


def split(v1, v2):
    return policy(SUBSETS + "  routes: [{to: [{subset: v1, weight: %d}, {subset: v2, weight: %d}]}]\n" % (v1, v2))


def later(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.isoformat().replace("+00:00", "Z")


class Traffic(Case):
    def fleet(self, labels, traffic, app_id="callee", **more):
        """A caller, and an instance of the callee with each of the labels, whose answer they are."""
        apps = [self.app(lambda request, text=text: Reply(200, text.encode())) for text in labels]
        for app, text in zip(apps, labels):
            self.sidecar(app_id, app, flags=["--labels", text])
        caller = self.sidecar("caller", resources={"traffic.yaml": traffic}, env={"OUTRIGGER_LOOPS": "2"}, **more)
        return caller, apps

    def ask(self, sidecar, headers=(), app_id="callee", method="work"):
        answer = sidecar.invoke(app_id, method, headers=headers)
        self.assertEqual(answer.status, 200, answer)
        return answer.body.decode()

    @tag("debug")
    def test_canary_and_header(self):
        caller, apps = self.fleet(["version=1", "version=2"], policy(SUBSETS + """
  targets: [callee]
  routes:
  - match: [{headers: [{name: x-beta, exact: 'yes'}]}]
    to: [{subset: v2}]
  - match: [{path: {prefix: /split}}]
    to: [{subset: v1, weight: 9}, {subset: v2, weight: 1}]
  - match: [{path: {prefix: /sticky}}]
    to: [{subset: v1, weight: 1}, {subset: v2, weight: 1}]
    sticky: {header: x-user}
  - to: [{subset: v1}]
"""))
        self.assertEqual({self.ask(caller) for _ in range(20)}, {"version=1"})
        self.assertEqual({self.ask(caller, [("X-Beta", "yes")]) for _ in range(20)}, {"version=2"})
        self.assertEqual({self.ask(caller, [("X-Beta", "no")]) for _ in range(5)}, {"version=1"})
        got = [self.ask(caller, method="split/it") for _ in range(300)]
        self.assertLessEqual(abs(got.count("version=2") - 30), 4)
        users = {user: {self.ask(caller, [("x-user", "u%d" % user)], method="sticky") for _ in range(4)} for user in range(20)}
        self.assertTrue(all(len(seen) == 1 for seen in users.values()), users)
        self.assertEqual(len(set.union(*users.values())), 2)

    @tag("debug")
    def test_live_change_fails_no_call(self):
        caller, _ = self.fleet(["version=1", "version=2"], split(100, 0))
        stop, failed, count = threading.Event(), [], [0] * 4

        def load(i):
            while not stop.is_set():
                answer = caller.invoke("callee", "work")
                count[i] += 1
                if answer.status != 200:
                    failed.append(answer)
        threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(10):
                weights, wanted = ((0, 100), "version=2") if turn % 2 == 0 else ((100, 0), "version=1")
                caller.write("traffic.yaml", split(*weights))
                wait_for("the change", lambda: self.ask(caller) == wanted)
                self.assertEqual({self.ask(caller) for _ in range(10)}, {wanted})
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failed, [])
        self.assertGreater(min(count), 0)

    @tag("debug")
    def test_bad_policies_change_nothing(self):
        caller, _ = self.fleet(["version=1", "version=2"], split(0, 1))
        bad = policy("  routes: [{to: [{subset: v9, weight: -1}], timeout: 99h, color: red}]\n")
        caller.write("traffic.yaml", bad)
        for text in ('there is no subset \\"v9\\"', "weight: must be 0 to 1000000, not -1", "timeout: must be 24h at most",
                     "spec.routes[0].color: unknown field", "traffic.yaml:5:"):
            wait_for(text, lambda: text in caller.log() or text.replace("\\", "") in caller.log())
        self.assertEqual({self.ask(caller) for _ in range(20)}, {"version=2"})
        self.assertEqual(caller.health(), 204)
        start = subprocess.run([os.path.join(BIN, "outriggerd"), "--app-id", "a", "--resources-path", caller.resources],
                               capture_output=True, text=True, timeout=60)
        self.assertNotEqual(start.returncode, 0)
        self.assertIn("traffic.yaml:5:", start.stdout + start.stderr)
        start = subprocess.run([os.path.join(BIN, "outriggerd"), "--app-id", "a", "--labels", "version"],
                               capture_output=True, text=True, timeout=60)
        self.assertIn("--labels", start.stdout + start.stderr)
        self.assertNotEqual(start.returncode, 0)

    @tag("debug")
    def test_an_environment_follows_the_tree(self):
        """front -> a -> b: what front begins is kept by a's app, which passes its baggage on."""
        environment = policy("  environment: {fallback: prod}\n" + """  routes:
  - match: [{headers: [{name: x-test}]}]
    environment: test
""")
        sidecars = {}

        def app_of(name, stage, calls=None):
            def handle(request):
                here = "%s-%s" % (name, stage)
                if not calls:
                    return Reply(200, here.encode())
                headers = [("baggage", request.header("baggage"))] if request.header("baggage") else []
                return Reply(200, here.encode() + b" " + sidecars[stage].invoke(calls, "work", headers=headers).body)
            return self.app(handle)
        for stage in ("prod", "test"):
            self.sidecar("b", app_of("b", stage), flags=["--labels", "environment=" + stage])
        for stage in ("prod", "test"):
            # without labels of their own callers go by the baggage alone
            sidecars[stage] = self.sidecar("a", app_of("a", stage, "b"), flags=["--labels", "environment=" + stage],
                                           resources={"traffic.yaml": environment})
        front = self.sidecar("front", resources={"traffic.yaml": environment})
        self.assertEqual({self.ask(front, app_id="a") for _ in range(8)}, {"a-prod b-prod"})
        self.assertEqual({self.ask(front, [("x-test", "1")], app_id="a") for _ in range(8)}, {"a-test b-test"})
        self.assertEqual({self.ask(front, [("baggage", "environment=test,x=1")], app_id="a") for _ in range(8)}, {"a-test b-test"})
        # nobody is of it: the fallback, and yet it stays what it is
        self.assertEqual({self.ask(front, [("baggage", "environment=dev")], app_id="a") for _ in range(4)}, {"a-prod b-prod"})

    @tag("debug")
    def test_fallback_and_an_empty_subset(self):
        route = "  subsets: [{name: v1, labels: {version: 1}}, {name: v3, labels: {version: 3}}]\n  routes: [{to: [{subset: v3}]%s}]\n"
        caller, apps = self.fleet(["version=1"], policy(route % ", fallback: v1"))
        self.assertEqual(self.ask(caller), "version=1")
        caller.write("traffic.yaml", policy(route % ""))
        wait_for("an answer of the sidecar's own", lambda: caller.invoke("callee", "work").status == 503)
        answer = caller.invoke("callee", "work")
        self.assertEqual(answer.header("outrigger-reason"), "no_subset_instance")
        self.assertEqual(answer.json["errorCode"], "ERR_DIRECT_INVOKE")
        app = self.app(lambda request: Reply(200, b"version=3"))
        self.sidecar("callee", app, flags=["--labels", "version=3"])
        wait_for("the new instance", lambda: caller.invoke("callee", "work").status == 200)
        self.assertEqual(self.ask(caller), "version=3")

    @tag("debug")
    def test_faults_end_by_themselves(self):
        fault = "  routes: [{fault: {expires: %s, %s}}]\n"
        caller, apps = self.fleet(["version=1"], policy(fault % (later(3600), "abort: {status: 418, grpcStatus: 8}")))
        answer = caller.invoke("callee", "work")
        self.assertEqual((answer.status, answer.header("outrigger-reason")), (418, "fault_injected"))
        self.assertEqual(apps[0].seen(), [])
        self.assertRegex(caller.metrics(), r'outrigger_faults_injected_total\{app_id="caller",kind="abort",target="callee"\} 1')
        for seconds in (4, 16, 64):  # on a busy machine one may be over before it is read
            over = time.monotonic() + seconds
            caller.write("traffic.yaml", policy(fault % (later(seconds), "abort: {status: 503}")))
            is_met = wait_for("the other fault", lambda: "met" if caller.invoke("callee", "work").status == 503 else time.monotonic() > over,
                              seconds + WAIT_S) == "met"
            if is_met:
                break
        self.assertTrue(is_met)
        wait_for("its end", lambda: caller.invoke("callee", "work").status == 200)
        caller.write("traffic.yaml", policy(fault % (later(-1), "abort: {status: 503}")))
        caller.wait_log("has passed, the fault is not injected")
        self.assertEqual(self.ask(caller), "version=1")

    @tag("debug")
    def test_a_route_s_timeout_and_delay(self):
        app = self.app(lambda request: Reply(200, b"fast") if request.path == "/fast" else hold(request))
        self.sidecar("callee", app)
        caller = self.sidecar("caller", resources={"traffic.yaml": policy("""  routes:
  - timeout: 400ms
  - match: [{path: {exact: /fast}}]
    fault: {expires: '%s', delay: {duration: 300ms}}
""" % later(3600))})
        began = time.monotonic()
        answer = caller.invoke("callee", "work")
        self.assertEqual((answer.status, answer.header("outrigger-reason")), (504, "timeout"))
        self.assertGreaterEqual(time.monotonic() - began, 0.4)
        began = time.monotonic()
        self.assertEqual(caller.invoke("callee", "fast").status, 200)
        self.assertGreaterEqual(time.monotonic() - began, 0.3)

    @tag("debug")
    def test_grpc_goes_by_the_same_rules(self):
        """Proxied: the path is the method; metadata are headers; a fault is a status, an environment is in the baggage."""
        def app_of(version):
            def run(app, peer, stream):
                head(peer, stream, [("x-version", version), ("x-baggage", stream.header("baggage") or "none")])
                peer.send_data(stream.id, message(b"answer"))
                end(peer, stream)
            app = GrpcApp(run)
            self.addCleanup(app.server.close)
            return app
        for version in ("1", "2"):
            self.sidecar("callee", app_of(version).port, flags=["--app-protocol", "grpc", "--labels", "version=%s,environment=e%s" % (version, version)])
        caller = self.sidecar("caller", resources={"traffic.yaml": policy(SUBSETS + """  routes:
  - match: [{path: {exact: /test.v1.Echo/Beta}}, {headers: [{name: x-beta}]}]
    to: [{subset: v2}]
  - match: [{path: {prefix: /test.v1.Faulty}}]
    fault: {expires: '%s', abort: {status: 503, grpcStatus: 8}}
  - match: [{path: {exact: /test.v1.Echo/Timed}}]
    timeout: 300ms
    fault: {expires: '%s', delay: {duration: 5s}}
  - match: [{path: {prefix: /test.v1.Tree}}]
    environment: e2
  environment: {fallback: e1}
""" % (later(3600), later(3600)))})
        peer = h2raw.Peer(port=caller.ports["grpc"].number)
        self.addCleanup(peer.close)
        peer.until_frame(h2raw.SETTINGS)

        def ask(method, extra=()):
            return peer.until_over(peer.begin_call(method, message(b"x"), [("dapr-app-id", "callee"), *extra]))
        for _ in range(6):
            self.assertEqual(ask("/test.v1.Echo/Do").header("x-version"), "1")
            self.assertEqual(ask("/test.v1.Tree/Do").header("x-version"), "2")
        self.assertEqual(ask("/test.v1.Tree/Do").header("x-baggage"), "environment=e2")
        self.assertEqual(ask("/test.v1.Echo/Do", [("baggage", "environment=e2")]).header("x-version"), "2")
        for method, extra in (("/test.v1.Echo/Beta", []), ("/test.v1.Echo/Do", [("x-beta", "1")])):  # nobody is v2 of e1
            stream = ask(method, extra)
            self.assertEqual((stream.status, stream.header("outrigger-reason")), (14, "no_subset_instance"))
            self.assertEqual(ask(method, [*extra, ("baggage", "environment=e2")]).header("x-version"), "2")
        stream = ask("/test.v1.Faulty/Do")
        self.assertEqual((stream.status, stream.header("outrigger-reason")), (8, "fault_injected"))
        stream = ask("/test.v1.Echo/Timed")
        self.assertEqual((stream.status, stream.header("outrigger-reason")), (4, "timeout"))

    @tag("debug")
    def test_invoke_service_goes_by_the_same_rules(self):
        """InvokeService: the message's method is the path, its verb the method; metadata are headers; the app speaks HTTP."""
        caller, apps = self.fleet(["version=1,environment=e1", "version=2,environment=e2"], policy(SUBSETS + """  routes:
  - match: [{path: {prefix: /orders}, methods: [PUT]}, {headers: [{name: x-beta, exact: 'yes'}]}]
    to: [{subset: v2}]
    environment: e2
  - match: [{path: {exact: /nobody}}]  # v2 of e1
    to: [{subset: v2}]
  - match: [{path: {prefix: /faulty}}]
    fault: {expires: '%s', abort: {status: 503, grpcStatus: 8}}
  - match: [{path: {exact: /faulty/mapped}}]
    fault: {expires: '%s', abort: {status: 403}}
  - match: [{path: {exact: /timed}}]
    timeout: 300ms
    fault: {expires: '%s', delay: {duration: 5s}}
  environment: {fallback: e1}
""" % ((later(3600),) * 3)))
        peer = h2raw.Peer(port=caller.ports["grpc"].number)
        self.addCleanup(peer.close)
        peer.until_frame(h2raw.SETTINGS)

        def ask(method, extra=(), verb=1):
            return peer.call(SERVICE, request("callee", method, b"", verb), extra)

        def served(stream):
            self.assertEqual(stream.status, 0)
            one, two = (field(2, text) in stream.messages[0] for text in ("version=1,environment=e1", "version=2,environment=e2"))
            self.assertNotEqual(one, two)
            return 2 if two else 1
        for _ in range(6):
            self.assertEqual(served(ask("work")), 1)
            self.assertEqual(served(ask("orders/42")), 1)
            self.assertEqual(served(ask("orders/42", verb=4)), 2)
            self.assertEqual(served(ask("work", [("x-beta", "yes")])), 2)
            self.assertEqual(served(ask("work", [("baggage", "environment=e2")])), 2)
        self.assertEqual({request.header("baggage") for request in apps[1].seen()}, {"environment=e2"})
        for method, status, reason in (("nobody", 14, "no_subset_instance"), ("faulty/x", 8, "fault_injected"),
                                       ("faulty/mapped", 7, "fault_injected"), ("timed", 4, "timeout")):
            stream = ask(method)
            self.assertEqual((method, stream.status, stream.header("outrigger-reason")), (method, status, reason))
            self.assertIn("failed to invoke, id: callee", stream.header("grpc-message"))
