"""What every broker does, as a list: each behaviour is a function of a test case and a Broker.

tests/integration/test_brokers.py runs the list on every back end. A name in Broker.without is a behaviour that a
back end does not have, and why it does not is said where it is given."""
import base64
import collections
import threading

from harness import Reply, component, reply_json, wait_for

WAIT_S = 60  # only ends a hopeless wait


class Broker:
    """One pub/sub component, named ps. is_shared: sidecars of several processes meet in it."""

    def __init__(self, case, type_, metadata, is_shared=True, without=()):
        self.case, self.type, self.metadata = case, type_, metadata
        self.is_shared, self.without = is_shared, set(without)

    def resources(self, **metadata):
        return {"ps.yaml": component("ps", self.type, {**self.metadata, **metadata})}

    def subscriber(self, handler, *subscriptions, app_id="app", flags=(), **metadata):
        """A sidecar with an app that subscribes; what handler(event) says is the app's answer."""
        def answer(request):
            return handler(request) or Reply(200, b"")
        app = self.case.app(answer, subscriptions=[{"pubsubname": "ps", **s} for s in subscriptions])
        sidecar = self.case.sidecar(app_id, app, resources=self.resources(**metadata), flags=flags)
        sidecar.wait_log('msg="subscribed"', len(subscriptions), WAIT_S)
        return sidecar, app


def to(topic, **more):
    return {"topic": topic, "route": "/" + topic, **more}


def publish(case, sidecar, topic, *values):
    for value in values:
        case.assertEqual(sidecar.publish("ps", topic, value).status, 204)


class Counts:
    """How often each number came."""

    def __init__(self):
        self.seen, self.lock = collections.Counter(), threading.Lock()

    def add(self, request):
        with self.lock:
            self.seen[request.json["data"]["n"]] += 1
            return self.seen[request.json["data"]["n"]]

    def wait(self, numbers, times=1):
        wait_for("messages", lambda: all(self.seen[n] >= times for n in numbers), WAIT_S)


def everything_arrives_once(case, broker):
    counts = Counts()
    sidecar, _ = broker.subscriber(lambda r: counts.add(r) and None, to("t"), to("end"))
    publish(case, sidecar, "t", *({"n": n} for n in range(200)))
    counts.wait(range(200))
    publish(case, sidecar, "end", {"n": "end"})
    counts.wait(["end"])
    case.assertEqual(set(counts.seen.values()), {1})


def what_is_refused_comes_again(case, broker):
    counts = Counts()

    def handler(request):
        times = counts.add(request)
        return {1: Reply(500), 2: reply_json({"status": "RETRY"})}.get(times)
    sidecar, _ = broker.subscriber(handler, to("t"))
    publish(case, sidecar, "t", {"n": 1}, {"n": 2})
    counts.wait([1, 2], 3)


def what_is_dropped_is_gone(case, broker):
    counts = Counts()

    def handler(request):
        counts.add(request)
        return reply_json({"status": "DROP"}) if request.json["data"]["n"] == 1 else None
    sidecar, _ = broker.subscriber(handler, to("t"))
    publish(case, sidecar, "t", {"n": 1})
    counts.wait([1])
    publish(case, sidecar, "t", *({"n": n} for n in range(2, 30)))
    counts.wait(range(2, 30))
    case.assertEqual(counts.seen[1], 1)


def a_dead_letter_is_the_message_itself(case, broker):
    app_saw = {}

    def handler(request):
        app_saw.setdefault(request.path, []).append(request.json)
        return reply_json({"status": "DROP"}) if request.path == "/t" else None
    sidecar, _ = broker.subscriber(handler, to("t", deadLetterTopic="dead"), to("dead"))
    publish(case, sidecar, "t", {"n": 1})
    wait_for("the dead letter", lambda: app_saw.get("/dead"), WAIT_S)
    case.assertEqual((app_saw["/dead"][0]["data"], app_saw["/dead"][0]["id"]), ({"n": 1}, app_saw["/t"][0]["id"]))


def no_more_are_in_hand_than_may_be(case, broker):
    counts, now, most = Counts(), [0], [0]
    gate = threading.Condition()

    def handler(request):
        with gate:
            now[0] += 1
            most[0] = max(most[0], now[0])
            gate.notify_all()
            gate.wait_for(lambda: now[0] >= 3 or counts.seen.total() >= 27, 10)
        counts.add(request)
        with gate:
            now[0] -= 1
            gate.notify_all()
    sidecar, _ = broker.subscriber(handler, to("t"), maxConcurrency="3")
    publish(case, sidecar, "t", *({"n": n} for n in range(30)))
    counts.wait(range(30))
    case.assertLessEqual(most[0], 3)


def any_bytes_pass(case, broker):
    sidecar, app = broker.subscriber(lambda r: None, to("t"))
    texts = ["", "\0", "é\u2028<&>", "x" * 1000000]
    for text in texts:
        answer = sidecar.call("POST", "/v1.0/publish/ps/t", [("Content-Type", "text/plain")], text.encode())
        case.assertEqual(answer.status, 204, answer.body)
    raw = bytes(range(256)) * 5
    sidecar.call("POST", "/v1.0/publish/ps/t", [("Content-Type", "application/octet-stream")], raw)
    wait_for("messages", lambda: len(app.seen("/t")) == len(texts) + 1, WAIT_S)
    events = [r.json for r in app.seen("/t")]
    case.assertEqual(sorted(e["data"] for e in events if "data" in e), sorted(texts))
    case.assertEqual([base64.b64decode(e["data_base64"]) for e in events if "data_base64" in e], [raw])


def topics_have_any_name(case, broker):
    sidecar, app = broker.subscriber(lambda r: None, *({"topic": t, "route": "/r%d" % i} for i, t in enumerate(["a/b:c d", "{x}", "ü"])))
    for i, path in enumerate(["a%2Fb:c%20d", "%7Bx%7D", "%C3%BC"]):
        case.assertEqual(sidecar.publish("ps", path, {"n": i}).status, 204)
    for i in range(3):
        wait_for("topic %d" % i, lambda: [r.json["data"] for r in app.seen("/r%d" % i)] == [{"n": i}], WAIT_S)


def metadata_reaches_the_app(case, broker):
    sidecar, app = broker.subscriber(lambda r: None, to("t"))
    case.assertEqual(sidecar.call_json("POST", "/v1.0/publish/ps/t?metadata.color=dark%20blue", {"n": 1}).status, 204)
    wait_for("the message", lambda: app.seen("/t"), WAIT_S)
    case.assertEqual(app.seen("/t")[0].header("color"), "dark blue")


def many_at_once_go_and_come(case, broker):
    seen, batches = [], []

    def handler(request):
        entries = request.json["entries"]
        batches.append(len(entries))
        seen.extend(e["event"]["data"]["n"] for e in entries)
        return reply_json({"statuses": [{"entryId": e["entryId"], "status": "SUCCESS"} for e in entries]})
    sidecar, _ = broker.subscriber(handler, to("t", bulkSubscribe={"enabled": True, "maxMessagesCount": 10, "maxAwaitDurationMs": 200}))
    entries = [{"entryId": str(n), "event": {"n": n}, "contentType": "application/json"} for n in range(100)]
    case.assertEqual(sidecar.call_json("POST", "/v1.0/publish/bulk/ps/t", entries).status, 204)
    wait_for("all entries", lambda: set(seen) >= set(range(100)), WAIT_S)
    case.assertLessEqual(max(batches), 10)
    case.assertLess(len(batches), 100)


def part_of_a_batch_comes_again(case, broker):
    counts, lock = collections.Counter(), threading.Lock()

    def handler(request):
        statuses = []
        with lock:
            for e in request.json["entries"]:
                n = e["event"]["data"]["n"]
                counts[n] += 1
                statuses.append({"entryId": e["entryId"], "status": "RETRY" if n % 3 == 0 and counts[n] == 1 else "SUCCESS"})
        return reply_json({"statuses": statuses})
    sidecar, _ = broker.subscriber(handler, to("t", bulkSubscribe={"enabled": True, "maxMessagesCount": 10, "maxAwaitDurationMs": 200}))
    publish(case, sidecar, "t", *({"n": n} for n in range(12)))
    wait_for("those that were refused", lambda: all(counts[n] >= 2 for n in range(0, 12, 3)) and all(counts[n] for n in range(12)), WAIT_S)
    case.assertEqual([counts[n] for n in range(12) if n % 3], [1] * 8)


def every_group_gets_all(case, broker):
    one, two = Counts(), Counts()
    first, _ = broker.subscriber(lambda r: one.add(r) and None, to("t"), app_id="one")
    broker.subscriber(lambda r: two.add(r) and None, to("t"), app_id="two")
    publish(case, first, "t", *({"n": n} for n in range(50)))
    one.wait(range(50))
    two.wait(range(50))


def instances_share_the_work(case, broker):
    """Each has one message in hand and waits for the other to have one, too."""
    both, counts = threading.Barrier(2, timeout=WAIT_S), Counts()

    def handler(request):
        if request.json["data"]["n"] < 2:
            both.wait()
        counts.add(request)
    first, _ = broker.subscriber(handler, to("t"), maxConcurrency="1")
    broker.subscriber(handler, to("t"), maxConcurrency="1")
    publish(case, first, "t", *({"n": n} for n in range(20)))
    counts.wait(range(20))
    case.assertEqual(set(counts.seen.values()), {1})


def what_was_published_before_is_delivered(case, broker):
    counts = Counts()
    publisher = case.sidecar("publisher", resources=broker.resources())
    publish(case, publisher, "t", *({"n": n} for n in range(20)))
    broker.subscriber(lambda r: counts.add(r) and None, to("t"))
    counts.wait(range(20))


def what_is_in_hand_at_the_end_comes_at_once(case, broker):
    """Of a sidecar that ends in order, however long others would wait for one that died."""
    held, counts = threading.Event(), Counts()

    def hold(request):
        counts.add(request)
        held.wait(WAIT_S)
        return Reply(500)
    first, _ = broker.subscriber(hold, to("t"), maxConcurrency="2")
    publish(case, first, "t", *({"n": n} for n in range(5)))
    wait_for("two in hand", lambda: len(counts.seen) == 2, WAIT_S)
    first.signal(15)
    held.set()
    case.assertEqual(first.wait_exit(), 0)
    after = Counts()
    broker.subscriber(lambda r: after.add(r) and None, to("t"))
    after.wait(range(5))


def what_a_killed_sidecar_had_comes_to_another(case, broker):
    held, counts, after = threading.Event(), Counts(), Counts()

    def hold(request):
        counts.add(request)
        held.wait(WAIT_S)
        return Reply(500)
    first, _ = broker.subscriber(hold, to("t"), maxConcurrency="2")
    broker.subscriber(lambda r: after.add(r) and None, to("other"))
    publish(case, first, "t", *({"n": n} for n in range(5)))
    wait_for("two in hand", lambda: len(counts.seen) == 2, WAIT_S)
    first.kill()
    held.set()
    broker.subscriber(lambda r: after.add(r) and None, to("t"))
    after.wait(range(5))


def a_poison_message_holds_up_no_other(case, broker):
    counts = Counts()

    def handler(request):
        return Reply(500) if counts.add(request) and request.json["data"]["n"] < 0 else None
    sidecar, _ = broker.subscriber(handler, to("t"))
    publish(case, sidecar, "t", {"n": -1}, *({"n": n} for n in range(50)))
    counts.wait(range(50))
    counts.wait([-1], 2)


def an_unwell_app_is_left_alone_and_misses_nothing(case, broker):
    """What it had in hand when it became unwell is its own to answer; the rest waits."""
    is_well, probes, counts = [True], [0], Counts()

    def handler(request):
        if request.path != "/healthz":
            return counts.add(request) and None
        probes[0] += 1
        return Reply(200 if is_well[0] else 500)
    sidecar, _ = broker.subscriber(handler, to("t"), flags=["--enable-app-health-check", "--app-health-probe-interval", "1",
                                                            "--app-health-threshold", "1"])
    publish(case, sidecar, "t", *({"n": n} for n in range(20)))
    counts.wait(range(20))
    is_well[0], asked = False, probes[0]
    wait_for("a probe that fails", lambda: probes[0] >= asked + 3, WAIT_S)
    publish(case, sidecar, "t", *({"n": n} for n in range(20, 40)))
    asked = probes[0]
    wait_for("another one", lambda: probes[0] >= asked + 2, WAIT_S)
    case.assertEqual(sum(counts.seen.values()), 20)
    is_well[0] = True
    counts.wait(range(40))
    case.assertEqual(set(counts.seen.values()), {1})


ALL = [everything_arrives_once, what_is_refused_comes_again, what_is_dropped_is_gone, a_dead_letter_is_the_message_itself,
       no_more_are_in_hand_than_may_be, any_bytes_pass, topics_have_any_name, metadata_reaches_the_app, many_at_once_go_and_come,
       part_of_a_batch_comes_again, a_poison_message_holds_up_no_other, an_unwell_app_is_left_alone_and_misses_nothing]
SHARED = [every_group_gets_all, instances_share_the_work, what_was_published_before_is_delivered,
          what_is_in_hand_at_the_end_comes_at_once, what_a_killed_sidecar_had_comes_to_another]


def of(broker):
    return [b for b in ALL + (SHARED if broker.is_shared else []) if b.__name__ not in broker.without]
