"""Start, reload, shutdown, flags and files: what scripts and supervisors rely on (contract/dropin.md, lifecycle.md)."""
import glob
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import BIN, SLOW, Case, Client, Port, Reply, call, component, reply_json, tag, wait_for


class Start(Case):
    @tag("debug")
    def test_01_ports_answer_before_the_app_is_there(self):
        app = self.app(is_up=False)
        a = self.sidecar("app", app, is_ready=False)
        wait_for("the servers", lambda: a.health("/v1.0/healthz/outbound") == 204)
        self.assertEqual(a.health(), 500)
        app.up()
        a.wait_ready()

    def test_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            a = self.sidecar("app", is_started=False, flags=["--dapr-http-port", str(port)])
            a.launch()
            self.assertEqual(a.wait_exit(30), 1)
            self.assertRegex(a.log(), r"127\.0\.0\.1:%d.*[Aa]ddress already in use" % port)

    def test_port_of_another_sidecar_of_ours_is_in_use_too(self):
        a = self.sidecar("one")
        b = self.sidecar("two", is_started=False, flags=["--dapr-http-port", str(a.http)])
        b.launch()
        self.assertEqual(b.wait_exit(30), 1)
        self.assertRegex(b.log(), r"[Aa]ddress already in use")
        self.assertEqual(a.health(), 204)

    def test_same_ports_can_be_bound_again_at_once(self):
        a = self.sidecar("app", self.app())
        for _ in range(3):
            with Client(a.http) as held:  # an open connection, as clients leave them behind
                held.call("GET", "/v1.0/healthz")
                self.assertEqual(a.stop(), 0)
            a.start()

    def test_mistakes_are_told_all_at_once_with_their_place(self):
        bad = ("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: st\nspec:\n  type: state.in-memory\n"
               "  version: v1\n  metadata: nonsense\n")
        worse = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: [1]\nspec:\n  type: state.sqlite\n  version: v1\n"
        a = self.sidecar("app", resources={"bad.yaml": bad, "worse.yaml": worse}, is_ready=False)
        code = a.process.poll() if a.process.poll() is not None else None
        try:
            code = a.wait_exit(3)
        except AssertionError:
            pass  # what daprd goes on with, we go on with; but it must be told
        self.assertIn(code, (None, 1))
        self.assertRegex(a.log(), r"bad\.yaml:8:\d+")
        self.assertRegex(a.log(), r"worse\.yaml:4:\d+")

    def test_broken_configuration_file_is_fatal_with_its_place(self):
        a = self.sidecar("app", config="kind: Configuration\nspec:\n  tracing: [\n", is_ready=False)
        self.assertEqual(a.wait_exit(), 1)
        self.assertRegex(a.log(), r"config\.yaml:\d+:\d+")

    def test_unknown_component_type_and_missing_metadata_are_named(self):
        for text, pattern in ((component("x", "state.nosuch"), r"x.*state\.nosuch|state\.nosuch.*x"),
                              (component("x", "state.sqlite"), r"connectionString")):
            a = self.sidecar("app", resources={"x.yaml": text}, is_ready=False)
            self.assertEqual(a.wait_exit(), 1)
            self.assertRegex(a.log(), pattern)

    def test_missing_files_and_directories_are_named(self):
        a = self.sidecar("app", is_started=False, flags=["--config", "/no/such/config.yaml"])
        a.launch()
        self.assertEqual(a.wait_exit(), 1)
        self.assertIn("/no/such/config.yaml", a.log())
        b = self.sidecar("app", is_started=False, flags=["--resources-path", "/no/such/dir"])
        b.launch()
        self.assertEqual(b.wait_exit(), 1)
        self.assertIn("/no/such/dir", b.log())

    def test_unreadable_file_is_named(self):
        if os.getuid() == 0:
            self.skipTest("root reads everything")
        a = self.sidecar("app", is_started=False, resources={"x.yaml": component("x", "state.in-memory")})
        os.chmod(os.path.join(a.resources, "x.yaml"), 0)
        a.start()
        self.assertRegex(a.log(), r"x\.yaml.*[Pp]ermission denied")

    def test_flags_in_every_form(self):
        binary = os.path.join(BIN, "outriggerd")
        self.assertRegex(subprocess.check_output([binary, "--version"], text=True), r"^1\.\d+\.\d+\n$")
        self.assertEqual(subprocess.run([binary, "-version"], stdout=subprocess.DEVNULL).returncode, 0)
        self.assertEqual(subprocess.run([binary, "--nonsense"], stderr=subprocess.DEVNULL).returncode, 2)
        a = self.sidecar("app", flags=["-log-level=debug", "--enable-profiling", "--placement-host-address=", "--log-as-json"])
        first = json.loads(a.log().splitlines()[0])
        for key in ("time", "level", "msg", "app_id", "instance", "scope", "type", "ver"):
            self.assertIn(key, first)

    @tag("debug")
    def test_no_environment_at_all(self):
        app = self.app()
        a = self.sidecar("bare", app, clean_env=True, env={"TMPDIR": self.dir})
        b = self.sidecar("second", clean_env=True, env={"TMPDIR": self.dir})
        self.assertEqual(b.invoke("bare", "x").status, 200)
        self.assertEqual((a.stop(), b.stop()), (0, 0))

    def test_two_sidecars_find_each_other_with_no_configuration(self):
        app = self.app()
        a, b = self.sidecar("one"), self.sidecar("two", app)
        self.assertEqual(a.invoke("two", "x").status, 200)
        b.stop()
        answer = a.invoke("two", "x")
        self.assertEqual(answer.status, 500)

    def test_log_lines_are_as_daprd_writes_them(self):
        a = self.sidecar("app")
        for line in a.log().splitlines():
            self.assertRegex(line, r'^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z" level=(debug|info|warning|warn|error|fatal) '
                                   r'msg=("(?:[^"\\]|\\.)*"|\S+) ')
            self.assertIn("app_id=app", line)

    def test_32_features_not_configured_open_nothing(self):
        a = self.sidecar("app")
        self.assertNotRegex(a.log(), r"level=(warn|error)")
        listening = set()
        for table in ("tcp", "tcp6"):
            with open("/proc/%d/net/%s" % (a.pid, table)) as file:
                lines = [l.split() for l in file.readlines()[1:]]
            inodes = {os.readlink(os.path.join("/proc/%d/fd" % a.pid, f))[8:-1] for f in os.listdir("/proc/%d/fd" % a.pid)
                      if os.readlink(os.path.join("/proc/%d/fd" % a.pid, f)).startswith("socket:")}
            for fields in lines:
                if fields[9] in inodes:
                    self.assertEqual(fields[3], "0A", "a connection to somewhere")
                    listening.add(int(fields[1].split(":")[1], 16))
        self.assertEqual(listening, {p.number for p in a.ports.values()})


class Api(Case):
    @tag("debug")
    def test_api_token_is_required_except_for_health(self):
        a = self.sidecar("app", env={"DAPR_API_TOKEN": "sesame"})
        self.assertEqual(a.call("GET", "/v1.0/metadata").status, 401)
        self.assertEqual(a.call("GET", "/v1.0/metadata", [("dapr-api-token", "wrong")]).status, 401)
        self.assertEqual(a.call("GET", "/v1.0/metadata", [("dapr-api-token", "sesame")]).status, 200)
        self.assertEqual((a.health(), a.health("/v1.0/healthz/outbound")), (204, 204))

    def test_metadata_tells_what_is_there_and_keeps_attributes(self):
        a = self.sidecar("app", self.app(), resources={"st.yaml": component("st", "state.in-memory")})
        self.assertEqual(a.call("PUT", "/v1.0/metadata/color", [("Content-Type", "text/plain")], b"green").status, 204)
        meta = a.call("GET", "/v1.0/metadata").json
        self.assertEqual((meta["id"], meta["extended"]["color"]), ("app", "green"))
        self.assertIn(("st", "state.in-memory"), [(c["name"], c["type"]) for c in meta["components"]])
        self.assertRegex(meta["runtimeVersion"], r"^1\.\d+\.\d+$")

    def test_02_latency_histograms_resolve_below_a_millisecond(self):
        a = self.sidecar("app", resources={"st.yaml": component("st", "state.in-memory")})
        for _ in range(20):
            a.call("GET", "/v1.0/state/st/k")
        counts = dict(re.findall(r'^dapr_component_state_latencies_bucket\{.*operation="get".*le="([^"]+)"\} (\d+)', a.metrics(), re.M))
        self.assertLessEqual({"0.1", "0.25", "0.5", "1"}, set(counts))
        self.assertGreater(int(counts["0.5"]), 0)

    def test_public_port_serves_health_and_metadata_only(self):
        port = Port()
        a = self.sidecar("app", flags=["--dapr-public-port", str(port.number), "--dapr-public-listen-address", "127.0.0.1"])
        port.release()
        self.assertEqual(call(port.number, "GET", "/v1.0/healthz").status, 204)
        self.assertEqual(call(port.number, "GET", "/v1.0/metadata").status, 200)
        self.assertEqual(call(port.number, "GET", "/v1.0/state/st/a").status, 404)
        self.assertEqual(a.health(), 204)

    def test_wait_flag_waits_until_ready(self):
        a = self.sidecar("app", is_started=False)
        unready = self.app(lambda request: Reply(500, b""), port=a.http)
        waiting = subprocess.Popen([os.path.join(BIN, "outriggerd"), "--app-id", "app", "--wait", "--dapr-http-port", str(a.http)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(waiting)
        wait_for("the second question", lambda: len(unready.seen()) >= 2)
        self.assertIsNone(waiting.poll())
        unready.down()
        a.start()
        self.assertEqual(waiting.wait(10), 0)


class Reload(Case):
    def names(self, a):
        return sorted(c["name"] for c in a.call("GET", "/v1.0/metadata").json.get("components", []))

    @tag("debug", "tsan")
    def test_component_added_changed_and_removed(self):
        a = self.sidecar("app", resources={"one.yaml": component("one", "state.in-memory")})
        a.write("two.yaml", component("two", "state.in-memory"))
        wait_for("the second", lambda: a.call_json("POST", "/v1.0/state/two", [{"key": "a", "value": 1}]).status == 204)
        a.remove("one.yaml")
        wait_for("its end", lambda: self.names(a) == ["two"])
        self.assertEqual(a.call("GET", "/v1.0/state/one/a").status, 400)
        self.assertEqual(a.call("GET", "/v1.0/state/two/a").json, 1)  # the one that stayed was left alone
        a.write("two.yaml", component("two", "state.sqlite", {"connectionString": "t.db"}))
        wait_for("the change", lambda: a.call("GET", "/v1.0/state/two/a").status == 204)

    @tag("debug")
    def test_24_broken_file_keeps_the_old_and_says_where(self):
        a = self.sidecar("app", resources={"one.yaml": component("one", "state.in-memory")})
        a.call_json("POST", "/v1.0/state/one", [{"key": "a", "value": 1}])
        for times in (1, 2):  # when it is read again, all that came of the first time has happened
            a.write("one.yaml", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: one\nspec: [\n" + "\n" * times)
            wait_for("the complaint", lambda: len(re.findall(r"the former stay.*one\.yaml:\d+", a.log())) >= times)
        self.assertEqual(a.call("GET", "/v1.0/state/one/a").json, 1)
        a.write("one.yaml", component("one", "state.in-memory"))
        a.write("two.yaml", component("two", "state.in-memory"))
        wait_for("the reload", lambda: self.names(a) == ["one", "two"])
        self.assertEqual(a.call("GET", "/v1.0/state/one/a").json, 1)

    def test_23_symlink_swap_is_noticed(self):
        real = self.path("v1")
        os.mkdir(real)
        with open(os.path.join(real, "c.yaml"), "w") as file:
            file.write(component("one", "state.in-memory"))
        os.mkdir(self.path("res"))
        os.symlink(real, self.path("res/..data"))
        os.symlink("..data/c.yaml", self.path("res/c.yaml"))
        a = self.sidecar("app", resources_dir=self.path("res"))
        self.assertEqual(self.names(a), ["one"])
        os.mkdir(self.path("v2"))
        with open(self.path("v2/c.yaml"), "w") as file:
            file.write(component("two", "state.in-memory"))
        os.symlink(self.path("v2"), self.path("res/..new"))
        os.replace(self.path("res/..new"), self.path("res/..data"))
        wait_for("the change", lambda: self.names(a) == ["two"])

    def test_24_many_reloads_need_no_more_memory(self):
        a = self.sidecar("app")

        def reload(n):
            a.write("c.yaml", component("c%d" % n, "state.in-memory"))
            wait_for("c%d" % n, lambda: self.names(a) == ["c%d" % n])
        for n in range(50):
            reload(n)
        before, descriptors = a.rss_kib(), a.descriptors()
        for n in range(50, 300):
            reload(n)
        self.assertLess(a.rss_kib() - before, 1024 * SLOW * SLOW)
        self.assertLessEqual(a.descriptors(), descriptors + 2)

    def test_subscription_added_while_running(self):
        app = self.app(lambda r: Reply(200, b""))
        a = self.sidecar("app", app, resources={"ps.yaml": component("ps", "pubsub.sqlite", {"connectionString": "p.db"})})
        subscription = ("apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: s\nspec:\n  pubsubname: ps\n"
                        "  topic: t\n  routes:\n    default: %s\n")
        a.write("s.yaml", subscription % "/event")
        a.wait_log('msg="subscribed"')
        self.assertEqual(a.publish("ps", "t", 1).status, 204)
        wait_for("delivery", lambda: app.seen("/event"))
        a.remove("s.yaml")
        wait_for("its end", lambda: a.call("GET", "/v1.0/metadata").json.get("subscriptions", []) == [])
        self.assertEqual(a.publish("ps", "t", 2).status, 204)
        a.write("s.yaml", subscription % "/later")  # gets what nobody took
        wait_for("the second message", lambda: app.seen("/later"))
        self.assertEqual([[r.json["data"] for r in app.seen(path)] for path in ("/event", "/later")], [[1], [2]])

    @tag("debug")
    def test_sighup_starts_again_in_the_same_process(self):
        app = self.app()
        a = self.sidecar("app", app, resources={"st.yaml": component("st", "state.sqlite", {"connectionString": "s.db"})})
        a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}])
        pid = a.pid
        for round_ in range(3):
            starts = a.log().count("dapr initialized")
            a.signal(signal.SIGHUP)
            a.wait_log("dapr initialized", starts + 1)
            a.wait_ready()
            self.assertIsNone(a.process.poll())
            self.assertEqual(a.call("GET", "/v1.0/state/st/a").json, 1)
            self.assertEqual(a.invoke("app", "x").status, 200)
        self.assertEqual(a.pid, pid)
        self.assertEqual(a.stop(), 0)

    def test_changed_configuration_in_the_folder_restarts_in_place(self):
        text = ("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: r\n"
                "spec:\n  tracing:\n    samplingRate: '%d'\n")
        a = self.sidecar("app", resources={"r.yaml": text % 0})
        starts = a.log().count("dapr initialized")
        a.write("r.yaml", text % 1)
        a.wait_log("dapr initialized", starts + 1)
        a.wait_ready()


class Shutdown(Case):
    def wait_draining(self, sidecar):
        """Its servers take nothing new: health is no more, or there is none to ask."""
        def is_draining():
            try:
                return sidecar.health() != 204
            except (OSError, EOFError):
                return True
        wait_for("the end of service", is_draining)

    @tag("debug", "tsan")
    def test_signals_end_with_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            a = self.sidecar("app", self.app())
            a.signal(number)
            self.assertEqual(a.wait_exit(), 0)

    @tag("debug")
    def test_sigterm_at_any_moment_of_the_start(self):
        """Before the handlers are there it ends by the signal, from then on with 0, and never late."""
        for n in range(24):
            a = self.sidecar("app", resources={"st.yaml": component("st", "state.sqlite", {"connectionString": "s.db"})},
                             is_ready=False)
            time.sleep(n * 0.001 * SLOW)  # the moment is what is tried out
            began = time.monotonic()
            a.signal(signal.SIGTERM)
            self.assertIn(a.wait_exit(), (0, -signal.SIGTERM), "after %d ms" % n)
            self.assertLess(time.monotonic() - began, 2 * SLOW, "after %d ms" % n)

    def test_shutdown_by_the_api(self):
        a = self.sidecar("app")
        self.assertEqual(a.call("POST", "/v1.0/shutdown").status, 204)
        self.assertEqual(a.wait_exit(), 0)

    @tag("debug")
    def test_04_sigterm_with_requests_in_flight_loses_none(self):
        count = 1000 if SLOW == 1 else 200
        gate = threading.Event()

        def handler(request):
            gate.wait(20)
            return Reply(200, request.path.encode())
        app = self.app(handler)
        a = self.sidecar("caller", flags=["--dapr-graceful-shutdown-seconds", "20"])
        b = self.sidecar("callee", app, flags=["--dapr-graceful-shutdown-seconds", "20"])
        clients = [Client(a.http, timeout_s=40) for _ in range(count)]
        for i, client in enumerate(clients):
            client.send_request("GET", "/v1.0/invoke/callee/method/%d" % i)
        wait_for("all requests at the app", lambda: len(app.seen()) >= count, 20)
        b.signal(signal.SIGTERM)
        a.signal(signal.SIGTERM)
        self.wait_draining(a)
        self.wait_draining(b)
        gate.set()
        for i, client in enumerate(clients):
            answer = client.read_answer()
            self.assertEqual((answer.status, answer.body), (200, b"/%d" % i))
            client.close()
        self.assertEqual((a.wait_exit(30), b.wait_exit(30)), (0, 0))

    def test_blocked_shutdown_keeps_the_api_up(self):
        a = self.sidecar("app", self.app(), flags=["--dapr-block-shutdown-duration", "2s"],
                         resources={"st.yaml": component("st", "state.in-memory")})
        a.signal(signal.SIGTERM)
        a.wait_log("blocking shutdown")
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}]).status, 204)
        self.assertEqual(a.wait_exit(), 0)

    def test_second_signal_ends_at_once(self):
        gate = threading.Event()
        app = self.app(lambda r: (gate.wait(30), Reply(200, b""))[1])
        a = self.sidecar("app", app, flags=["--dapr-graceful-shutdown-seconds", "60"])
        client = Client(a.http)
        client.send_request("GET", "/v1.0/invoke/app/method/x")
        wait_for("the request", lambda: app.seen("/x"))
        a.signal(signal.SIGTERM)
        self.wait_draining(a)
        self.assertIsNone(a.process.poll())
        a.signal(signal.SIGTERM)
        self.assertEqual(a.wait_exit(5 * SLOW), 1)
        gate.set()
        client.close()

    def test_shutdown_that_takes_too_long_ends_with_1(self):
        gate = threading.Event()
        app = self.app(lambda r: (gate.wait(30), Reply(200, b""))[1])
        a = self.sidecar("app", app, flags=["--dapr-graceful-shutdown-seconds", "1"])
        client = Client(a.http)
        client.send_request("GET", "/v1.0/invoke/app/method/x")
        wait_for("the request", lambda: app.seen("/x"))
        began = time.monotonic()
        a.signal(signal.SIGTERM)
        self.assertEqual(a.wait_exit(), 1)
        self.assertLess(time.monotonic() - began, 5 * SLOW)
        gate.set()
        client.close()

    def test_03_registry_away_at_boot_and_mid_run(self):
        """Without a restart all find each other again once the registry's file can be made."""
        file = os.path.join(self.run_dir, "nameresolution.db")
        os.makedirs(file, mode=0o700)  # nothing can be opened there
        os.chmod(self.run_dir, 0o700)
        a, b = self.sidecar("caller"), self.sidecar("callee", self.app())
        self.assertEqual(a.invoke("callee", "x").status, 500)
        os.rmdir(file)
        wait_for("the registration", lambda: a.invoke("callee", "x").status == 200, 15)
        for path in glob.glob(file + "*"):
            os.unlink(path)
        c = self.sidecar("another")
        wait_for("the registration anew", lambda: c.invoke("callee", "x").status == 200, 15)

    def test_a_sidecar_that_stops_leaves_the_registry(self):
        app = self.app()
        a, b = self.sidecar("caller"), self.sidecar("callee", app)
        self.assertEqual(a.invoke("callee", "x").status, 200)
        b.stop()
        answer = a.invoke("callee", "x")
        self.assertEqual(answer.status, 500)
        self.assertIn("callee", answer.json["message"])
