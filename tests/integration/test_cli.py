"""The `outrigger` command."""
import json
import os
import signal
import subprocess
import sys
import time

from harness import BIN, WAIT_S, Case, component, tag, wait_for

OUTRIGGER = os.path.join(BIN, "outrigger")
ANSWERING_APP = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        text = b'%s %s %s' % (self.command.encode(), self.path.encode(), body)
        self.send_response(418 if self.path == '/teapot' else 200 if self.path != '/dapr/subscribe' else 404)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if self.path.startswith('/event'): print('event', body.decode(), flush=True)
    do_GET = do_POST
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['APP_PORT'])), H).serve_forever()
"""


class Cli(Case):
    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_"))}
        return {**env, "OUTRIGGER_RUN_DIR": self.run_dir, **more}

    def outrigger(self, *args, input=None, env=None):
        return subprocess.run([OUTRIGGER, *args], input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=env or self.environment(), cwd=self.dir, timeout=WAIT_S + 20)

    def run_app(self, app_id, *command, flags=(), env=None):
        """`outrigger run` in the background, up; self.output(app_id) is what it printed."""
        with open(self.path(app_id + ".log"), "wb") as log:
            process = subprocess.Popen([OUTRIGGER, "run", "--app-id", app_id, *flags, "--", *command], stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, env=env or self.environment(), cwd=self.dir)
        self.started.append(process)
        wait_for("the start of " + app_id, lambda: " runs: " in self.output(app_id) or process.poll() is not None)
        return process

    def output(self, app_id):
        with open(self.path(app_id + ".log"), errors="replace") as file:
            return file.read()

    def listed(self):
        return json.loads(self.outrigger("list", "-o", "json").stdout)

    def exit_code(self, process):
        return process.wait(WAIT_S + 10)

    def is_gone(self, pid):
        try:
            with open("/proc/%d/stat" % pid) as file:
                return file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    @tag("debug")
    def test_exit_code_is_the_apps(self):
        self.assertEqual(self.outrigger("run", "--app-id", "job", "--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.outrigger("run", "--app-id", "job", "--", "sh", "-c", "kill -9 $$").returncode, 128 + 9)

    def test_missing_command_is_127_and_names_it(self):
        done = self.outrigger("run", "--app-id", "job", "--", "./no-such-app")
        self.assertEqual(done.returncode, 127)
        self.assertIn("./no-such-app: No such file", done.stdout + done.stderr)

    def test_flags_are_checked_before_anything_starts(self):
        for flags, text in ((["--app-id", "a.b"], "dot"), ([], "app-id"), (["--app-id", "a", "--no-such-flag"], "no-such-flag"),
                            (["--app-id", "a", "--app-port", "x"], "app-port")):
            done = self.outrigger("run", *flags, "--", "touch", "started")
            self.assertNotEqual(done.returncode, 0, flags)
            self.assertIn(text, done.stderr)
        self.assertFalse(os.path.exists(self.path("started")))

    def test_app_sees_ports_in_its_environment(self):
        done = self.outrigger("run", "--app-id", "env", "--app-port", "auto", "--", "env")
        seen = dict(l.split(" | ", 1)[1].split("=", 1) for l in done.stdout.splitlines() if l.startswith("env ") and "=" in l)
        for name in ("APP_PORT", "DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_METRICS_PORT"):
            self.assertTrue(seen[name].isdigit(), name)
        self.assertEqual((seen["APP_ID"], seen["APP_PROTOCOL"]), ("env", "http"))
        self.assertEqual(seen["DAPR_HTTP_ENDPOINT"], "http://127.0.0.1:" + seen["DAPR_HTTP_PORT"])

    def test_app_starts_when_the_sidecar_answers(self):
        script = "import os, urllib.request as u; o = u.build_opener(u.ProxyHandler({})); " \
                 "print(o.open(os.environ['DAPR_HTTP_ENDPOINT'] + '/v1.0/metadata').status)"
        done = self.outrigger("run", "--app-id", "early", "--", sys.executable, "-c", script)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("| 200", done.stdout)

    def test_lines_are_prefixed_whole(self):
        done = self.outrigger("run", "--app-id", "lines", "--", "sh", "-c", "printf 'one\\ntw'; sleep 0.1; printf 'o\\nthree'")
        own = [l.split(" | ", 1)[1] for l in done.stdout.splitlines() if l.startswith("lines  ")]
        self.assertEqual(own, ["one", "two", "three"])
        self.assertNotIn("\033", done.stdout)

    @tag("debug")
    def test_ctrl_c_lets_the_app_call_out_then_ends_both(self):
        script = ("import os, signal, sys, urllib.request as u\n"
                  "def stop(*_):\n"
                  "    o = u.build_opener(u.ProxyHandler({}))\n"
                  "    print('goodbye', o.open(os.environ['DAPR_HTTP_ENDPOINT'] + '/v1.0/metadata').status, flush=True)\n"
                  "    sys.exit(3)\n"
                  "signal.signal(signal.SIGINT, stop)\n"
                  "print('up', flush=True)\n"
                  "while True: signal.pause()\n")
        process = self.run_app("polite", sys.executable, "-c", script)
        wait_for("the app", lambda: "| up" in self.output("polite"))
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.exit_code(process), 3)
        self.assertIn("goodbye 200", self.output("polite"))
        self.assertEqual(self.listed(), [])

    def test_second_ctrl_c_kills(self):
        process = self.run_app("stubborn", "sh", "-c", "trap '' INT TERM; echo up; while :; do sleep 1; done")
        wait_for("the app", lambda: "| up" in self.output("stubborn"))
        process.send_signal(signal.SIGINT)
        wait_for("the first signal", lambda: "once more kills it" in self.output("stubborn"))
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.exit_code(process), 128 + 9)

    def test_stop_timeout_ends_a_stubborn_app(self):
        process = self.run_app("slow", "sh", "-c", "trap '' INT TERM; echo up; while :; do sleep 1; done",
                               flags=["--stop-timeout", "200ms"])
        wait_for("the app", lambda: "| up" in self.output("slow"))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.exit_code(process), 128 + 9)

    def test_34_sidecar_ends_with_the_job(self):
        process = self.run_app("job", "sh", "-c", "sleep 0.5")
        sidecar = self.listed()[0]["daprdPid"]
        self.assertEqual(self.exit_code(process), 0)
        self.assertTrue(self.is_gone(sidecar))

    def test_app_ends_when_the_sidecar_dies(self):
        process = self.run_app("orphan", "sleep", "1000")
        entry = self.listed()[0]
        os.kill(entry["daprdPid"], signal.SIGKILL)
        self.assertEqual(self.exit_code(process), 1)
        self.assertTrue(self.is_gone(entry["appPid"]))

    def test_nothing_is_left_when_the_run_itself_is_killed(self):
        process = self.run_app("victim", "sh", "-c", "sleep 1000 & echo child $!; sleep 1000")
        wait_for("the app", lambda: "child " in self.output("victim"))
        child = int(self.output("victim").split("child ")[1].split()[0])
        entry = self.listed()[0]
        process.kill()
        process.wait()
        for pid in (entry["appPid"], entry["daprdPid"], child):
            wait_for("the end of %d" % pid, lambda: self.is_gone(pid), 20)
        self.assertEqual(self.listed(), [])

    def test_list_shows_what_runs_and_stop_ends_it(self):
        first, second = self.run_app("one", "sleep", "1000"), self.run_app("two", "sleep", "1000", flags=["-p", "1234"])
        listed = {entry["appId"]: entry for entry in self.listed()}
        self.assertEqual(set(listed), {"one", "two"})
        self.assertEqual(listed["two"]["appPort"], 1234)
        self.assertEqual(listed["two"]["command"], "sleep 1000")
        self.assertEqual(listed["one"]["cliPid"], first.pid)
        table = self.outrigger("list").stdout.splitlines()
        self.assertIn("APP ID", table[0])
        self.assertEqual(len(table), 3)
        self.assertEqual(self.outrigger("stop", "one").returncode, 0)
        self.assertEqual(self.exit_code(first), 128 + 15)
        unknown = self.outrigger("stop", "one")
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("there are: two", unknown.stderr)
        self.outrigger("stop", "two")
        self.exit_code(second)

    def test_leftovers_of_a_killed_run_disappear(self):
        os.makedirs(self.run_dir, mode=0o700)
        leftover = os.path.join(self.run_dir, "run-%d.json" % os.getpid())
        with open(leftover, "w") as file:
            json.dump({"appId": "ghost", "cliPid": os.getpid()}, file)
        self.assertEqual(self.listed(), [])
        self.assertFalse(os.path.exists(leftover))

    def test_run_directory_of_somebody_else_is_refused(self):
        if os.getuid() != 0:
            self.skipTest("needs root to give a directory away")
        os.makedirs(self.run_dir, mode=0o700)
        os.chown(self.run_dir, 12345, 12345)
        done = self.outrigger("list")
        self.assertEqual(done.returncode, 1)
        self.assertIn("owned by another user", done.stderr)
        os.chown(self.run_dir, 0, 0)

    @tag("debug")
    def test_invoke_and_publish_reach_the_app(self):
        os.makedirs(self.path("res"))
        with open(self.path("res/ps.yaml"), "w") as file:
            file.write(component("ps", "pubsub.in-memory") + "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\n"
                       "metadata:\n  name: s\nspec:\n  pubsubname: ps\n  topic: news\n  routes:\n    default: /event\n")
        process = self.run_app("web", sys.executable, "-c", ANSWERING_APP, flags=["-p", "auto", "-d", "res"])
        wait_for("the app", lambda: self.outrigger("invoke", "-a", "web", "-m", "x").returncode == 0)
        done = self.outrigger("invoke", "--app-id", "web", "--method", "a/b?c=d", "--data", '{"e":1}')
        self.assertEqual((done.returncode, done.stdout), (0, 'POST /a/b?c=d {"e":1}'))
        done = self.outrigger("invoke", "-a", "web", "-m", "get", "-v", "GET")
        self.assertEqual(done.stdout, "GET /get ")
        done = self.outrigger("invoke", "-a", "web", "-m", "file", "-f", "-", input="from a pipe")
        self.assertEqual(done.stdout, "POST /file from a pipe")
        done = self.outrigger("invoke", "-a", "web", "-m", "teapot", "-v", "GET")
        self.assertEqual((done.returncode, "418" in done.stderr), (1, True))
        done = self.outrigger("publish", "-a", "web", "-p", "ps", "-t", "news", "-d", '{"n":42}', "-m", '{"ttlInSeconds":"60"}')
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_for("the event", lambda: '"n":42' in self.output("web"))
        done = self.outrigger("publish", "-a", "web", "-p", "nowhere", "-t", "news", "-d", "x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nowhere", done.stdout)
        process.terminate()
        self.exit_code(process)

    def test_invoke_of_an_unknown_app_says_which_ones_run(self):
        process = self.run_app("known", "sleep", "1000")
        done = self.outrigger("invoke", "-a", "unknown", "-m", "x")
        self.assertEqual(done.returncode, 1)
        self.assertIn('no app "unknown" runs here; there are: known', done.stderr)
        process.terminate()
        self.exit_code(process)

    def test_api_token_goes_along(self):
        with open(self.path("token"), "w") as file:
            file.write("sesame\n")
        env = self.environment(DAPR_API_TOKEN="sesame")
        process = self.run_app("locked", sys.executable, "-c", ANSWERING_APP, flags=["-p", "auto"], env=env)
        wait_for("the app", lambda: self.outrigger("invoke", "-a", "locked", "-m", "x", env=env).returncode == 0)
        env = self.environment(DAPR_API_TOKEN_FILE=self.path("token"))
        self.assertEqual(self.outrigger("invoke", "-a", "locked", "-m", "x", env=env).returncode, 0)
        self.assertEqual(self.outrigger("invoke", "-a", "locked", "-m", "x").returncode, 1)
        process.terminate()
        self.exit_code(process)

    def test_unix_socket_instances_are_reached(self):
        process = self.run_app("uds", sys.executable, "-c", ANSWERING_APP,
                               flags=["-p", "auto", "--unix-domain-socket", self.dir])
        wait_for("the app", lambda: self.outrigger("invoke", "-a", "uds", "-m", "x").returncode == 0)
        process.terminate()
        self.exit_code(process)

    @tag("debug")
    def test_help_version_and_completion(self):
        for command in ("run", "list", "stop", "invoke", "publish", "mtls", "version", "completion"):
            done = self.outrigger(command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("Examples:", done.stdout)
            self.assertEqual(self.outrigger("help", command).stdout, done.stdout)
        versions = json.loads(self.outrigger("version", "-o", "json").stdout)
        self.assertTrue(versions["sidecar"].endswith("/outriggerd"))
        for shell in ("bash", "zsh", "fish"):
            script = self.outrigger("completion", shell).stdout
            for word in ("invoke", "app-port", "resources-path", "dapr-graceful-shutdown-seconds"):
                self.assertIn(word, script, shell)
        self.assertEqual(subprocess.run(["bash", "-n"], input=self.outrigger("completion", "bash").stdout, text=True).returncode, 0)
        self.assertEqual(self.outrigger("completion", "tcsh").returncode, 2)
        self.assertEqual(self.outrigger("frobnicate").returncode, 2)

    def test_completion_knows_flags_values_and_running_apps(self):
        process = self.run_app("runs", "sleep", "1000")

        def complete(*words):
            script = 'source <("$1" completion bash); shift; COMP_WORDS=(outrigger "$@"); COMP_CWORD=$#; _outrigger; ' \
                     'printf "%s\\n" "${COMPREPLY[@]}"'
            env = self.environment(PATH=BIN + ":" + os.environ["PATH"])
            return subprocess.run(["bash", "-c", script, "x", OUTRIGGER, *words], stdout=subprocess.PIPE, text=True,
                                  env=env).stdout.split()
        self.assertEqual(complete("inv"), ["invoke"])
        self.assertIn("--app-max-concurrency", complete("run", "--app-"))
        self.assertEqual(complete("list", "-o", "j"), ["json"])
        self.assertEqual(complete("stop", "r"), ["runs"])
        self.assertEqual(complete("invoke", "--app-id", ""), ["runs"])
        process.terminate()
        self.exit_code(process)
