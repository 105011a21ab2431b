"""State stores: one list of behaviours (tests/conformance/state_behaviours.py), run on every back end."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conformance"))

import state_behaviours
from harness import Case, component, tag
from redis_server import RedisServer, needs_redis
from state_behaviours import BEHAVIOURS, Store


class Behaviours(Case):
    """Each behaviour has a store of its own: a component whose keys have a prefix of their own."""

    def run_list(self, make, without=()):
        """make(name): the resource of a component of that name."""
        names = {b.__name__: "st-" + b.__name__.replace("_", "-") for b in BEHAVIOURS}
        resources = {"%s.yaml" % name: make(name) for name in names.values()}
        sidecar = self.sidecar("app", resources=resources, is_ready=True)
        unknown = set(without) - set(names)
        self.assertFalse(unknown)
        for behaviour in BEHAVIOURS:
            if behaviour.__name__ in without:
                continue
            with self.subTest(behaviour=behaviour.__name__):
                behaviour(self, Store(sidecar, names[behaviour.__name__]))

    @tag("debug", "tsan")
    def test_in_memory(self):
        self.run_list(lambda name: component(name, "state.in-memory"))

    @tag("debug", "tsan")
    def test_sqlite(self):
        path = self.path("state.db")
        self.run_list(lambda name: component(name, "state.sqlite", {"connectionString": path, "keyPrefix": "name"}))

    @needs_redis
    @tag("debug", "tsan")
    def test_redis(self):
        """As in daprd, what a first write has made is changed by its etag only: no plain write goes over it."""
        server = RedisServer(self)
        self.run_list(lambda name: component(name, "state.redis", {"redisHost": server.host, "keyPrefix": "name"}),
                      without=("a_plain_write_goes_over_a_first_write",))
