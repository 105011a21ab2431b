"""Brokers: one list of behaviours (tests/conformance/pubsub_behaviours.py), run on every back end."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conformance"))
import pubsub_behaviours  # noqa: E402
from harness import Case, tag  # noqa: E402
from kafka_server import KafkaServer  # noqa: E402
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


class Kafka(Case):
    """One server; each test has topics of its own by its namespace."""

    @classmethod
    def setUpClass(cls):
        cls.server = KafkaServer()
        cls.addClassCleanup(cls.server.close)

    def sidecar(self, app_id, app=None, **more):
        return super().sidecar(app_id, app, env={"NAMESPACE": self._testMethodName[5:]}, **more)

    def broker(self):
        return pubsub_behaviours.Broker(self, "pubsub.kafka", {
            "brokers": self.server.host(), "authType": "none", "initialOffset": "oldest", "clientID": "{namespace}",
            "sessionTimeout": "2s", "heartbeatInterval": "500ms"})


# Kafka's names have an alphabet; of a partition one message is in hand, at one member of the group.
NOT_ON_KAFKA = [pubsub_behaviours.topics_have_any_name, pubsub_behaviours.a_poison_message_holds_up_no_other,
                pubsub_behaviours.no_more_are_in_hand_than_may_be, pubsub_behaviours.instances_share_the_work]


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
    if each not in NOT_ON_KAFKA:
        add(Kafka, each)
