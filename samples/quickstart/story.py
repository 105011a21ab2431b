"""Drives the two apps through the `outrigger` command, checks every answer and tells what happened."""
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

OUTRIGGER = sys.argv[1]
PATIENCE_S = 20
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
WISHES = [{"item": "tea", "table": 4}, {"item": "soup", "table": 7}, {"item": "pie", "table": 2}]

colourful = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def check(ok, text):
    mark = "✓" if ok else "✗"
    if colourful:
        mark = f"\033[{32 if ok else 31}m{mark}\033[0m"
    print(f"  {mark} {text}", flush=True)
    if not ok:
        sys.exit(1)


def chapter(text):
    print(f"\n\033[1m{text}\033[0m" if colourful else f"\n{text}", flush=True)


def outrigger(*args):
    done = subprocess.run([OUTRIGGER, *args], capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode != 0:
        check(False, f"outrigger {' '.join(args)}: {done.stderr.strip()} {done.stdout.strip()}")
    return done.stdout


def invoke(app, method, data=None):
    args = ["invoke", "--app-id", app, "--method", method, "--verb", "GET" if data is None else "POST"]
    text = outrigger(*args, *(["--data", json.dumps(data)] if data is not None else []))
    return json.loads(text)


def is_ready(port):
    try:
        with opener.open(f"http://127.0.0.1:{port}/v1.0/healthz", timeout=5) as answer:
            return answer.status == 204
    except (OSError, urllib.error.URLError):
        return False


def wait_for(what, condition):
    """The value of condition once it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    check(False, f"{what} did not happen within {PATIENCE_S} s")


def running():
    apps = {app["appId"]: app for app in json.loads(outrigger("list", "-o", "json"))}
    ready = {"orders", "kitchen"} <= apps.keys() and all(is_ready(app["httpPort"]) for app in apps.values())
    return apps if ready else None


chapter("Opening")
apps = wait_for("the start of both apps", running)
for name in ("kitchen", "orders"):
    app = apps[name]
    check(app["appPort"] > 0, f"{name} listens on {app['appPort']}, its sidecar on {app['httpPort']}")

chapter("Guests arrive")
placed = []
for wish in WISHES:
    began = time.monotonic()
    order = invoke("orders", "orders", wish)
    took = (time.monotonic() - began) * 1000
    placed.append(order)
    check(order["cook"] == "Mina" and order["item"] == wish["item"],
          f"table {wish['table']} orders {wish['item']}: {order['cook']} from the kitchen says {order['minutes']} minutes"
          f"  ({took:.0f} ms: you, orders, two sidecars, kitchen and back)")

chapter("What was written down")
for order in placed:
    saved = invoke("orders", f"orders/{order['number']}")
    check(saved == order, f"order {order['number']} reads back from the state store as it was saved")

chapter("The tickets in the kitchen")
tickets = wait_for("the arrival of all events", lambda: (lambda t: t if len(t) >= len(placed) else None)(
    invoke("kitchen", "tickets")))
for order in placed:
    check(order in tickets, f"order {order['number']} ({order['item']}) arrived as an event")

chapter("A guest changes their mind")
gone = placed[-1]["number"]
check(invoke("orders", f"cancel/{gone}", {}) == {"cancelled": gone}, f"order {gone} is cancelled")
missing = subprocess.run([OUTRIGGER, "invoke", "-a", "orders", "-m", f"orders/{gone}", "-v", "GET"],
                         capture_output=True, text=True, timeout=PATIENCE_S)
check(missing.returncode == 1 and "404" in missing.stderr, f"order {gone} is no longer in the state store")
