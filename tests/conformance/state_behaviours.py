"""What every state store does, as a list: each behaviour is a function of a test case and a Store.

tests/integration/test_stores.py runs the list on every back end. A name in Store.without is a behaviour
that a back end does not have, and why it does not is said where it is given."""
import threading

from harness import wait_for


class Store:
    """One state component of a sidecar."""

    def __init__(self, sidecar, name="st", without=()):
        self.sidecar, self.name, self.without = sidecar, name, set(without)

    def path(self, *more):
        return "/v1.0/state/" + "/".join((self.name,) + more)

    def save(self, key, value, **more):
        return self.sidecar.call_json("POST", self.path(), [{"key": key, "value": value, **more}])

    def save_all(self, items):
        return self.sidecar.call_json("POST", self.path(), items)

    def get(self, key):
        return self.sidecar.call("GET", self.path(key))

    def value(self, key):
        answer = self.get(key)
        return answer.json if answer.status == 200 else None

    def etag(self, key):
        return self.get(key).header("ETag")

    def delete(self, key, etag=None, query=""):
        return self.sidecar.call("DELETE", self.path(key) + query, [] if etag is None else [("If-Match", etag)])

    def bulk(self, keys):
        answer = self.sidecar.call_json("POST", self.path("bulk"), {"keys": keys})
        return {item["key"]: item for item in answer.json}

    def transact(self, *operations, headers=(), **more):
        body = {"operations": [{"operation": kind, "request": request} for kind, request in operations], **more}
        return self.sidecar.call_json("POST", self.path("transaction"), body, headers)

    def keys(self, prefix, size=None, token=None):
        headers = [("outrigger-key-prefix", prefix)]
        headers += [("outrigger-page-size", str(size))] if size else []
        headers += [("outrigger-page-token", token)] if token else []
        return self.sidecar.call("GET", self.path(), headers)

    def all_keys(self, prefix, size=None):
        found, token = [], None
        while True:
            answer = self.keys(prefix, size, token)
            found += answer.json
            token = answer.header("outrigger-next-page-token")
            if not token:
                return found

    def drop(self, prefix):
        return self.sidecar.call("DELETE", self.path(), [("outrigger-key-prefix", prefix)])


def upsert(key, value, **more):
    return ("upsert", {"key": key, "value": value, **more})


def delete(key, **more):
    return ("delete", {"key": key, **more})


FIRST_WRITE = {"options": {"concurrency": "first-write"}}
WRONG_ETAG = "00000000-0000-0000-0000-000000000000"


def in_parallel(count, work):
    results = [None] * count

    def run(n):
        results[n] = work(n)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---------------------------------------------------------------- one key
def a_value_reads_back_as_it_was_written(case, store):
    for value in ({"a": [1, None, "x"]}, "text", "", 7, 1.5, True, None, [], {}, "\u00fc\u4e16\U0001f600", "<&>", "a\nb"):
        case.assertEqual(store.save("v", value).status, 204)
        answer = store.get("v")
        case.assertEqual((answer.status, answer.json, answer.header("Content-Type")), (200, value, "application/json"))
        case.assertTrue(answer.header("ETag"))


def an_absent_key_is_204_without_etag(case, store):
    answer = store.get("absent")
    case.assertEqual((answer.status, answer.body, answer.header("ETag")), (204, b"", None))


def deleting_an_absent_key_succeeds(case, store):
    case.assertEqual(store.delete("absent").status, 204)


def a_deleted_key_is_gone(case, store):
    store.save("d", 1)
    case.assertEqual(store.delete("d").status, 204)
    case.assertEqual(store.get("d").status, 204)


def keys_of_any_letters(case, store):
    for key, path in (("a b", "a%20b"), ("x/y?z#w", "x%2Fy%3Fz%23w"), ("\u00e9", "%C3%A9"), ("*[a]?\\", "%2A%5Ba%5D%3F%5C"), ("k" * 500, "k" * 500)):
        case.assertEqual(store.save(key, key).status, 204)
        case.assertEqual(store.value(path), key)


def a_large_value(case, store):
    value = "x" * 2000000
    case.assertEqual(store.save("large", value).status, 204)
    case.assertEqual(store.value("large"), value)


# ---------------------------------------------------------------- etags
def each_write_changes_the_etag(case, store):
    seen = set()
    for n in range(5):
        store.save("e", n)
        seen.add(store.etag("e"))
    case.assertEqual(len(seen), 5)


def a_write_with_the_right_etag_wins_and_with_an_old_one_loses(case, store):
    store.save("e", 1)
    etag = store.etag("e")
    case.assertEqual(store.save("e", 2, etag=etag).status, 204)
    late = store.save("e", 3, etag=etag)
    case.assertEqual((late.status, late.json["errorCode"]), (409, "ERR_STATE_SAVE"))
    case.assertEqual(store.value("e"), 2)


def last_write_honours_an_etag_that_is_given(case, store):
    store.save("e", 1)
    old = store.etag("e")
    store.save("e", 2)
    last = {"options": {"concurrency": "last-write"}}
    case.assertEqual(store.save("e", 3, etag=old, **last).status, 409)
    case.assertEqual(store.save("e", 4, **last).status, 204)
    case.assertEqual(store.value("e"), 4)


def an_etag_of_a_key_that_is_gone_loses(case, store):
    store.save("gone", 1)
    etag = store.etag("gone")
    store.delete("gone")
    case.assertEqual(store.save("gone", 2, etag=etag).status, 409)
    case.assertEqual(store.delete("gone", etag).status, 409)
    case.assertEqual(store.get("gone").status, 204)


def an_empty_etag_is_none(case, store):
    store.save("e", 1)
    case.assertEqual(store.save("e", 2, etag="").status, 204)
    case.assertEqual(store.delete("e", "").status, 204)


def delete_with_an_etag(case, store):
    store.save("e", 1)
    refused = store.delete("e", WRONG_ETAG)
    case.assertEqual((refused.status, refused.json["errorCode"]), (409, "ERR_STATE_DELETE"))
    case.assertEqual(store.value("e"), 1)
    case.assertEqual(store.delete("e", store.etag("e")).status, 204)


def first_write_creates_once(case, store):
    case.assertEqual(store.save("f", 1, **FIRST_WRITE).status, 204)
    case.assertEqual(store.save("f", 2, **FIRST_WRITE).status, 409)
    case.assertEqual(store.value("f"), 1)
    case.assertEqual(store.save("f", 3, etag=store.etag("f"), **FIRST_WRITE).status, 204)
    store.delete("f")
    case.assertEqual(store.save("f", 4, **FIRST_WRITE).status, 204)


def first_write_refuses_a_key_of_a_plain_write(case, store):
    store.save("f", 1)
    case.assertEqual(store.save("f", 2, **FIRST_WRITE).status, 409)


def a_plain_write_goes_over_a_first_write(case, store):
    store.save("f", 1, **FIRST_WRITE)
    case.assertEqual(store.save("f", 2).status, 204)
    case.assertEqual(store.value("f"), 2)


def create_if_absent_has_one_winner_of_32(case, store):
    for round_ in range(8):
        key = "race%d" % round_
        results = in_parallel(32, lambda n: store.save(key, n, **FIRST_WRITE).status)
        case.assertEqual(sorted(results), [204] + [409] * 31)
        case.assertEqual(store.value(key), results.index(204))


def an_etag_storm_counts_right(case, store):
    """Everybody reads, adds one, and writes with the etag of what he read: nothing is lost."""
    store.save("count", 0)

    def add(_):
        done = 0
        while done < 10:
            answer = store.get("count")
            done += store.save("count", answer.json + 1, etag=answer.header("ETag")).status == 204
        return done
    in_parallel(8, add)
    case.assertEqual(store.value("count"), 80)


# ---------------------------------------------------------------- many
def many_are_saved_and_read(case, store):
    items = [{"key": "m%d" % n, "value": {"n": n}} for n in range(500)]
    case.assertEqual(store.save_all(items).status, 204)
    found = store.bulk([i["key"] for i in items] + ["m-none"])
    case.assertEqual({k: v.get("data") for k, v in found.items()}, {**{i["key"]: i["value"] for i in items}, "m-none": None})
    case.assertEqual(set(found["m-none"]), {"key"})
    case.assertTrue(all(found[i["key"]]["etag"] for i in items))


def of_many_those_that_may_are_saved(case, store):
    store.save("b1", 1)
    old = store.etag("b1")
    store.save("b1", 2)
    case.assertEqual(store.save_all([{"key": "b1", "value": 3, "etag": old}, {"key": "b2", "value": 3}]).status, 409)
    case.assertEqual((store.value("b1"), store.value("b2")), (2, 3))


# ---------------------------------------------------------------- transactions
def a_transaction_does_all_in_order(case, store):
    store.save("t1", 1)
    case.assertEqual(store.transact(upsert("t2", 1), delete("t1"), upsert("t2", 2), upsert("t3", 3), delete("t3")).status, 204)
    case.assertEqual([store.value(k) for k in ("t1", "t2", "t3")], [None, 2, None])


def a_transaction_does_nothing_when_an_etag_is_another(case, store):
    store.save("t1", 1)
    store.save("t2", 1)
    old = store.etag("t2")
    store.save("t2", 2)
    refused = store.transact(upsert("t1", 9), delete("t2", etag=old), upsert("t3", 9))
    case.assertEqual((refused.status, refused.json["errorCode"]), (500, "ERR_STATE_TRANSACTION"))
    case.assertEqual([store.value(k) for k in ("t1", "t2", "t3")], [1, 2, None])


def a_transaction_with_right_etags(case, store):
    store.save("t1", 1)
    case.assertEqual(store.transact(upsert("t1", 2, etag=store.etag("t1")), upsert("t2", 2)).status, 204)
    case.assertEqual((store.value("t1"), store.value("t2")), (2, 2))


def a_first_write_in_a_transaction(case, store):
    case.assertEqual(store.transact(upsert("t1", 1, **FIRST_WRITE)).status, 204)
    case.assertEqual(store.transact(upsert("t2", 1), upsert("t1", 2, **FIRST_WRITE)).status, 500)
    case.assertEqual((store.value("t1"), store.value("t2")), (1, None))


def transactions_do_not_tear(case, store):
    """Two keys are always written together; whoever writes with both etags sees a pair."""
    store.transact(upsert("p1", 0), upsert("p2", 0))

    def write(n):
        for i in range(20):
            store.transact(upsert("p1", [n, i]), upsert("p2", [n, i]))
    in_parallel(4, write)
    found = store.bulk(["p1", "p2"])
    case.assertEqual(found["p1"]["data"], found["p2"]["data"])


# ---------------------------------------------------------------- time to live
def a_time_to_live_ends(case, store):
    store.save("short", 1, metadata={"ttlInSeconds": "1"})
    store.save("long", 1, metadata={"ttlInSeconds": "1000"})
    wait_for("the end of a key", lambda: store.get("short").status == 204, 60)
    case.assertEqual(store.value("long"), 1)
    case.assertEqual(store.save("short", 2, **FIRST_WRITE).status, 204)


def a_time_to_live_in_a_transaction_ends(case, store):
    case.assertEqual(store.transact(upsert("short", 1), metadata={"ttlInSeconds": "1"}).status, 204)
    wait_for("the end of a key", lambda: store.get("short").status == 204, 60)


def a_time_to_live_is_taken_away(case, store):
    store.save("kept", 1, metadata={"ttlInSeconds": "1"})
    case.assertEqual(store.save("kept", 2, metadata={"ttlInSeconds": "-1"}).status, 204)
    store.save("other", 1, metadata={"ttlInSeconds": "2"})
    wait_for("the end of a later key", lambda: store.get("other").status == 204, 60)
    case.assertEqual(store.value("kept"), 2)


# ---------------------------------------------------------------- keys by their beginning
def keys_of_a_prefix_page_by_page(case, store):
    store.save_all([{"key": "cart-%03d" % n, "value": n} for n in range(250)] + [{"key": "car", "value": 1}, {"key": "cart", "value": 1}, {"key": "dart-1", "value": 1}])
    case.assertEqual(sorted(set(store.all_keys("cart-"))), ["cart-%03d" % n for n in range(250)])
    case.assertEqual(sorted(set(store.all_keys("cart-", 7))), ["cart-%03d" % n for n in range(250)])
    case.assertEqual(sorted(set(store.all_keys("car"))), ["car", "cart"] + ["cart-%03d" % n for n in range(250)])
    case.assertEqual(store.all_keys("nothing"), [])


def a_prefix_is_no_pattern(case, store):
    store.save_all([{"key": k, "value": 1} for k in ("a*b", "a?c", "axb", "a[x]", "a\\b")])
    case.assertEqual(store.all_keys("a*"), ["a*b"])
    case.assertEqual(store.all_keys("a["), ["a[x]"])
    case.assertEqual(store.all_keys("a\\"), ["a\\b"])


def keys_of_a_prefix_are_deleted(case, store):
    store.save_all([{"key": "cart-%03d" % n, "value": n} for n in range(250)] + [{"key": "cart", "value": 1}])
    answer = store.drop("cart-")
    case.assertEqual((answer.status, answer.json), (200, {"deleted": 250}))
    case.assertEqual(store.all_keys("cart"), ["cart"])


def a_prefix_of_nothing_and_one_with_bars_are_refused(case, store):
    case.assertEqual(store.drop("").status, 400)
    case.assertEqual((store.drop("a||b").status, store.keys("a||b").status), (400, 400))
    case.assertEqual(store.keys("a", token="%%%").status, 400)
    case.assertEqual((store.keys("a", size=-1).status, store.keys("a", size=100000).status), (400, 400))


def without_the_header_there_is_no_such_route(case, store):
    for method in ("GET", "DELETE"):
        answer = store.sidecar.call(method, store.path())
        case.assertEqual((answer.status, answer.json["errorCode"]), (404, "ERR_DIRECT_INVOKE"))


BEHAVIOURS = [thing for name, thing in list(globals().items())
              if callable(thing) and getattr(thing, "__module__", "") == __name__ and not isinstance(thing, type)
              and thing.__code__.co_varnames[:2] == ("case", "store")]
