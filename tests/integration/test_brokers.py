"""Brokers: one list of behaviours (tests/conformance/pubsub_behaviours.py), run on every back end."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conformance"))
import pubsub_behaviours  # noqa: E402
from harness import Case, tag  # noqa: E402
from redis_server import RedisServer, needs_redis  # noqa: E402


class InMemory(Case):
    def broker(self):
        return pubsub_behaviours.Broker(self, "pubsub.in-memory", {}, is_shared=False)


class Sqlite(Case):
    def broker(self):
        return pubsub_behaviours.Broker(self, "pubsub.sqlite", {
            "connectionString": self.path("ps.db"), "redeliverInterval": "100ms", "leaseDuration": "1s"})


@needs_redis
class Redis(Case):
    def broker(self):
        return pubsub_behaviours.Broker(self, "pubsub.redis", {
            "redisHost": RedisServer(self).host, "redeliverInterval": "100ms", "processingTimeout": "500ms"})


def add(case_class, behaviour):
    def test(self):
        behaviour(self, self.broker())
    test.__name__ = "test_" + behaviour.__name__
    setattr(case_class, test.__name__, tag("debug")(test))


for each in pubsub_behaviours.ALL:
    add(InMemory, each)
for each in pubsub_behaviours.ALL + pubsub_behaviours.SHARED:
    add(Sqlite, each)
    add(Redis, each)
