"""Replays those recorded answers of the reference that concern what is built so far.

  golden.py [-k REGEX] [-s REGEX] [-v] [--keep]   run; ends with "N passed, N failed, N skipped"
  golden.py --list                                which case is in, which is out and why

A case is out when it needs something that is not built: a gRPC method, or a component type that the sidecar
does not know. That is read from the case and its setup. Where we differ on purpose differences.csv says so.
Environment: OUTRIGGER_BIN, the directory of the binaries (build/bin)."""
import argparse
import csv
import fcntl
import importlib.util
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(os.path.dirname(TOP), "shared", "golden")

GROUPS = ("invoke", "limits", "tracing", "http-surface", "metadata", "health", "start-stop", "secrets", "cors",
          "state", "scopes", "metrics", "reload", "grpc-surface", "no-control-plane", "proxy", "token", "api-list",
          "invoke-grpc", "pubsub", "pubsub-layout", "pubsub-grpc", "bindings", "access-control", "middleware",
          "resiliency", "state-layout", "lock", "configuration")
# Methods of the Dapr service that are not built yet.
ABSENT_RPCS = ()
HAS_GRPC_APPS = True
SUPPORTED = ("state.in-memory", "state.sqlite", "state.redis", "lock.redis", "configuration.redis", "pubsub.in-memory",
             "pubsub.sqlite", "pubsub.redis", "secretstores.local.env",
             "secretstores.local.file", "nameresolution.", "bindings.cron", "bindings.redis", "bindings.http",
             "bindings.localstorage", "middleware.http.uppercase", "middleware.http.routerchecker",
             "middleware.http.routeralias", "middleware.http.ratelimit")
# First segment of a route after its version -> the kind of component behind it.
BLOCKS = {"state": "state", "publish": "pubsub", "secrets": "secretstores", "configuration": "configuration",
          "lock": "lock", "unlock": "lock", "crypto": "crypto", "subtlecrypto": "crypto", "conversation": "conversation",
          "bindings": "bindings"}


def components(setup):
    """name -> (type, tolerated when it fails)"""
    found = {}
    for text in setup.get("files", {}).values():
        for document in re.split(r"^---$", text, flags=re.M):
            kind = re.search(r"^kind:\s*Component\b", document, re.M)
            name = re.search(r"^metadata:\s*\n(?:  .*\n)*?  name:\s*(\S+)", document, re.M)
            type_ = re.search(r"^  type:\s*(\S+)", document, re.M)
            if kind and name and type_:
                found[name[1]] = (type_[1], bool(re.search(r"^\s+ignoreErrors:\s*true", document, re.M)))
    return found


def is_supported(type_):
    return type_.startswith(SUPPORTED)


def why_out(case, setup):
    """None when the case concerns us, else the reason."""
    if case["group"] not in GROUPS:
        return "group %s is not part of this" % case["group"]
    parts = components(setup)
    if case["group"] != "start-stop":
        for name, (type_, tolerated) in parts.items():
            if not is_supported(type_) and not tolerated:
                return "its sidecar needs %s" % type_
    apps = {s["name"]: s.get("app") for s in setup["sidecars"]}
    for step in case["steps"]:
        text = json.dumps(step)
        reason = rpc_reason(step.get("grpc"), parts)
        if reason:
            return reason
        if step.get("op", {}).get("do") == "redis" and not setup.get("redis"):
            return "looks into Redis"
        for name in step.get("saw") or {}:
            if not HAS_GRPC_APPS and (apps.get(name) or {}).get("protocol") == "grpc":
                return "gRPC app"
        for id_, app in ((s.get("app_id", s["name"]), s.get("app")) for s in setup["sidecars"]):
            if not HAS_GRPC_APPS and app and app.get("protocol") == "grpc" and re.search(r"(?<![\w-])%s(?![\w-])" % re.escape(id_), text):
                return "gRPC app"
        reason = path_reason(step.get("http", {}).get("path", ""), parts)
        if reason:
            return reason
        expected = json.dumps(step.get("expect", {}))
        for type_ in {t for t, _ in parts.values() if not is_supported(t)}:
            if type_ in expected:
                return "its answer names %s" % type_
    return None


def rpc_reason(rpc, parts):
    if not rpc:
        return None
    service, method = rpc["method"].lstrip("/").split("/", 1)
    if service == "dapr.proto.runtime.v1.Dapr" and method in ABSENT_RPCS:
        return "gRPC method %s" % method
    requests = [rpc.get("request")] + (rpc.get("requests") or [])
    for request in requests + [r["initial_request"] for r in requests if isinstance(r, dict) and "initial_request" in r]:
        for field in ("store_name", "pubsub_name", "name", "component_name"):
            name = request.get(field) if isinstance(request, dict) else None
            if name in parts and not is_supported(parts[name][0]):
                return "component %s is %s" % (name, parts[name][0])
    return None


def path_reason(path, parts):
    segments = re.split(r"[/?]", path.lstrip("/"))
    if len(segments) < 2 or not segments[0].startswith("v1.0"):
        return None
    kind = BLOCKS.get(segments[1])
    of_kind = {name: type_ for name, (type_, _) in parts.items() if kind and type_.startswith(kind + ".")}
    for name in segments[2:4]:
        if name in of_kind and not is_supported(of_kind[name]):
            return "component %s is %s" % (name, of_kind[name])
    if of_kind and not any(is_supported(t) for t in of_kind.values()):
        return "its sidecar has only %s" % " and ".join(sorted(set(of_kind.values())))
    return None


def load():
    setups = json.load(open(os.path.join(GOLDEN, "setups.json")))
    cases = [json.loads(line) for line in open(os.path.join(GOLDEN, "shared.jsonl")) if line.strip()]
    with open(os.path.join(HERE, "differences.csv"), newline="") as file:
        differences = {row["case"]: row["reason"] for row in csv.DictReader(file)}
    rows = []
    for case in cases:
        reason = why_out(case, setups[case["setup"]])
        rows.append((case, reason or (case["id"] in differences and "differs: " + differences[case["id"]]) or None))
    unknown = set(differences) - {case["id"] for case in cases}
    if unknown:
        sys.exit("differences.csv names unknown cases: %s" % ", ".join(sorted(unknown)))
    return rows


def python():
    """An interpreter with grpcio and protobuf, which the recorded runner imports, and with the reflection that
    pluggable components in tests serve; None when there is no way."""
    if all(importlib.util.find_spec(name) for name in ("grpc", "google.protobuf", "grpc_reflection")):
        return sys.executable
    place = os.path.join(os.path.expanduser("~"), ".cache", "outrigger-golden")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place + ".lock", "w") as lock:  # test files run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        return prepare(place)


def prepare(place):
    interpreter = os.path.join(place, "bin", "python")
    probe = [interpreter, "-c", "import grpc, google.protobuf, grpc_reflection"]
    if os.path.exists(interpreter) and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0:
        return interpreter
    for command in ([sys.executable, "-m", "venv", place],
                    [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", "grpcio",
                     "protobuf", "grpcio-reflection"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            print("preparing %s failed: %s" % (place, done.stdout.strip()[-500:]))
            return None
    return interpreter


def finish(passed, failed, skipped):
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped), flush=True)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("-k", default="", help="only case ids that match")
    parser.add_argument("-s", default="", help="only setups that match")
    parser.add_argument("-v", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if not os.path.isdir(GOLDEN):
        print("SKIP golden: the recorded answers (../shared/golden) are not here")
        return finish(0, 0, 1)
    rows = load()
    if options.list:
        for case, reason in rows:
            print("%-4s %-14s %-10s %-46s %s" % ("out" if reason else "in", case["group"], case["setup"], case["id"],
                                                  reason or ""))
        print("%d in, %d out" % (sum(not r for _, r in rows), sum(bool(r) for _, r in rows)))
        return 0
    ids = [case["id"] for case, reason in rows if not reason and re.search(options.k, case["id"])]
    differing = [case["id"] for case, reason in rows if reason and reason.startswith("differs") and
                 re.search(options.k, case["id"]) and re.search(options.s, case["setup"])]
    for id_ in differing:
        print("SKIP %s: we differ on purpose" % id_)
    interpreter = python()
    if not interpreter:
        print("SKIP golden: grpcio and protobuf cannot be had")
        return finish(0, 0, 1)
    env = dict(os.environ)
    env["SIDECAR_BIN"] = os.path.join(env.get("OUTRIGGER_BIN", os.path.join(TOP, "build", "bin")), "outriggerd")
    command = [interpreter, os.path.join(GOLDEN, "runner.py"), "check", os.path.join(GOLDEN, "shared.jsonl"),
               "-k", "^(?:%s)$" % "|".join(map(re.escape, ids or ["nothing"])), "-s", options.s]
    command += ["-v"] * options.v + ["--keep"] * options.keep
    done = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    result = None
    for line in done.stdout:
        result = re.match(r"PASSED (\d+) of (\d+)", line) or result
        if line.startswith("FAIL") or not re.match(r"\d+ steps run|PASSED", line):
            print(line, end="", flush=True)
    done.wait()
    if not result:
        print("FAIL golden: the runner ended with exit code %d and no result" % done.returncode)
        return finish(0, 1, len(differing))
    passed, total = int(result[1]), int(result[2])
    return finish(passed, total - passed, len(differing))


if __name__ == "__main__":
    sys.exit(main())
