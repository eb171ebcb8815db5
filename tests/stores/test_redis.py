"""The Redis store keeps the contract on one server and on a cluster; and what is its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from realtime.stores.base import Store
from realtime.stores.redis import RedisStore
from tests.stores.contract import StoreContract, Subject
from tests.support.redis import RedisCluster

CLUSTER = {"cluster": True}


def keys(store: RedisStore, topic: str) -> dict[str, str]:
    names = ("meta", "log", "seen", "id", "topics")
    return dict(zip(names, store._keys(topic), strict=True))


def own_id(log: Subject) -> str:
    assert isinstance(log.store, RedisStore)
    return keys(log.store, log.topic)["id"]


class RedisContract(StoreContract):
    def client(self, store: Store) -> Any:
        """A client of the test's own for the same server."""
        raise NotImplementedError("a subclass knows where its Redis is")

    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        assert isinstance(store, RedisStore)
        client, at = self.client(store), keys(store, topic)
        meta = client.get(at["meta"]).split()
        meta[3] = repr(float(meta[3]) - seconds)
        meta[6] = repr(float(meta[6]) - seconds if float(meta[6]) else 0.0)
        client.set(at["meta"], " ".join(meta))
        entries = client.xrange(at["log"])
        client.delete(at["log"])
        for place, fields in entries:
            time, rest = fields["e"].split(" ", 1)
            client.xadd(at["log"], {"e": f"{float(time) - seconds!r} {rest}"}, id=place)
        for uid, time in client.zrange(at["seen"], 0, -1, withscores=True):
            client.zadd(at["seen"], {uid: time - seconds})


class TestOnOneServer(RedisContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[RedisStore]:
        store = RedisStore(redis_url)
        yield store
        store.close()

    def client(self, store: Store) -> Any:
        return redis.Redis.from_url(store.location, decode_responses=True, protocol=2)


class TestOnACluster(RedisContract):
    stories = 20

    @pytest.fixture
    def store(self, redis_cluster: RedisCluster) -> Iterator[RedisStore]:
        store = RedisStore(redis_cluster.url, CLUSTER)
        yield store
        store.close()

    def client(self, store: Store) -> Any:
        first = store.location.split(",")[0]
        return redis.RedisCluster.from_url(first, decode_responses=True, protocol=2)

    def with_the_same_id(self, log: Subject) -> Subject:
        """Each part of a cluster has an id of its own, as its nodes lose data by themselves."""
        return next(o for o in (log.other() for _ in range(10_000)) if own_id(o) == own_id(log))
