"""One rate for all sidecars of an app, by leases of a real Redis. How shares are found is in tests/unit/mesh/test_lease.c."""
import threading
import time

from harness import Case, Client, TimedOut, component, tag, wait_for
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
        counts, asked, odd, over = [0] * len(sidecars), [0] * len(sidecars), [], threading.Event()

        def call_on(i):
            with Client(sidecars[i].http) as client:
                while not over.is_set():
                    answer = client.call("GET", "/v1.0/invoke/callee/method/x")
                    asked[i] += 1
                    counts[i] += answer.status == 200
                    if answer.status not in (200, 429):
                        odd.append(answer)
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
        self.assertEqual(odd, [])
        return sum(counts) / took, sum(asked) / took

    def is_one_rate(self, sidecars, seconds, error):
        """Whether that is what they let in. A machine that has no time for one of them for a moment makes shares that
        are not even for as long, so who asks this asks again: what is wrong stays wrong (test_lease.c has no machine)."""
        let_in, asked = self.drive(sidecars, seconds)
        self.seen.append((let_in, asked))
        return asked > 150 and 100 - error <= let_in <= 100 + error  # else it says nothing

    def settle(self, sidecars, seconds, error):
        self.seen = []
        try:
            wait_for("the rate", lambda: self.is_one_rate(sidecars, seconds, error), 10 * seconds)
        except TimedOut as late:
            self.fail("%s: %s" % (late, self.seen))

    def wait_shared(self, sidecars, wanted):
        """Until all of them have said that they share, or do not."""
        def is_so():
            self.drive(sidecars, 0.2)
            logs = [s.log() for s in sidecars]
            return all((log.count("a rate limit is shared again") == log.count("a rate limit is not shared")) == wanted for log in logs)
        wait_for("sharing" if wanted else "not sharing", is_so)

    @tag("debug")
    def test_three_sidecars_have_one_rate_and_keep_their_shares_without_the_store(self):
        redis = RedisServer(self)
        all_three = self.instances(redis)
        self.drive(all_three, 0.7)
        self.settle(all_three, 4, 5)
        self.assertTrue(redis.command("KEYS", "outrigger||rate||default||callee||rates/all||*"))
        kept = False
        for _ in range(5):  # the shares of that very moment are the ones that stay
            redis.kill()
            self.wait_shared(all_three, False)
            self.seen = []
            kept = self.is_one_rate(all_three, 2, 10) or self.is_one_rate(all_three, 2, 10)
            redis.start()
            self.wait_shared(all_three, True)
            if kept:
                break
        self.assertTrue(kept, self.seen)
        self.settle(all_three[:1], 2, 10)  # the others ask for nothing

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
