"""One rate for all sidecars of an app, by leases of a real Redis. How shares are found is in tests/unit/mesh/test_lease.c."""
import threading
import time

from harness import Case, Client, component, tag, wait_for
from redis_server import RedisServer, needs_redis
from test_overload import rates


@needs_redis
class SharedRates(Case):
    """A rate limit that the instances of an app have together, in Redis: 100/s, and more asked than that."""
    LIMIT = "{name: all, requests: 100, interval: 1s, burst: 15, store: shared}"

    def instances(self, redis, limit=None):
        store = component("shared", "state.redis", {"redisHost": redis.host, "redisMaxRetries": "-1", "dialTimeout": "500ms"})
        return [self.sidecar("callee", self.app(), resources={"t.yaml": rates(limit or self.LIMIT), "s.yaml": store})
                for _ in range(3)]

    def drive(self, sidecars, seconds):
        """Calls without a pause of each app to itself; what was let in, a second, and what was asked."""
        counts, asked, over = [0] * len(sidecars), [0] * len(sidecars), threading.Event()

        def call_on(i):
            with Client(sidecars[i].http) as client:
                while not over.is_set():
                    answer = client.call("GET", "/v1.0/invoke/callee/method/x")
                    asked[i] += 1
                    counts[i] += answer.status == 200
                    if answer.status != 200:
                        self.assertEqual(answer.status, 429, answer)
                    over.wait(0.003)  # some 250 a second of each
        threads = [threading.Thread(target=call_on, args=(i,)) for i in range(len(sidecars))]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        return sum(counts) / took, sum(asked) / took

    @tag("debug")
    def test_three_sidecars_have_one_rate_and_keep_their_shares_without_the_store(self):
        redis = RedisServer(self)
        all_three = self.instances(redis)
        self.drive(all_three, 0.7)
        let_in, asked = self.drive(all_three, 4)
        self.assertGreater(asked, 150)  # else it says nothing
        self.assertTrue(95 <= let_in <= 105, (let_in, asked))
        self.assertTrue(redis.command("KEYS", "outrigger||rate||default||callee||rates/all||*"))
        redis.kill()
        self.drive(all_three, 0.5)
        let_in, asked = self.drive(all_three, 2)
        self.assertTrue(90 <= let_in <= 110, (let_in, asked))
        all_three[0].wait_log("a rate limit is not shared")
        redis.start()

        def is_shared_again():
            self.drive(all_three[:1], 0.2)
            return "a rate limit is shared again" in all_three[0].log()
        wait_for("the store to be asked again", is_shared_again)
        self.drive(all_three[:1], 0.7)
        let_in, asked = self.drive(all_three[:1], 2)
        self.assertTrue(90 <= let_in <= 110, (let_in, asked))  # the others ask for nothing

    @tag("debug")
    def test_a_store_that_cannot_is_told_of_and_the_limit_holds_here(self):
        limit = "{name: few, requests: 1, interval: 1h, burst: 2, store: %s}"
        memory = component("memory", "state.in-memory")
        for store, words in (("none", "not found"), ("memory", "not state.redis")):
            b = self.sidecar("callee", self.app(), resources={"t.yaml": rates(limit % store), "m.yaml": memory})
            self.assertEqual([b.invoke("callee", "x").status for _ in range(3)], [200, 200, 429])
            b.wait_log(words)
            self.assertRegex(b.metrics(), r'outrigger_rate_leases_total\{app_id="callee",outcome="failed",store="%s"\} \d' % store)
            b.stop()
