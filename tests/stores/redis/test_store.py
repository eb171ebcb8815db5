"""The contract with the Redis store, on one server and on a cluster; and its own behaviour."""

import asyncio
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from realtime.protocol.events import Draft
from realtime.stores.base import SEEN_SECONDS, Retention, Store
from realtime.stores.redis import RedisStore
from tests.stores.contract import StoreContract, Subject
from tests.support.redis import RedisCluster, RedisServer

PATIENCE = {"timeout": 10.0}  # so that a busy machine does not look like a fault
CLUSTER = {"cluster": True, "timeout": 10.0}


def keys(store: RedisStore, topic: str) -> dict[str, str]:
    names = ("meta", "log", "seen", "id", "topics", "forgotten", "due")
    return dict(zip(names, store._keys(topic), strict=True))


def id_key(log: Subject) -> str:
    assert isinstance(log.store, RedisStore)
    return keys(log.store, log.topic)["id"]


class RedisContract(StoreContract):
    def client(self, store: Store) -> Any:
        """Return another client for the same server."""
        raise NotImplementedError("a subclass connects to its Redis")

    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        assert isinstance(store, RedisStore)
        client, names = self.client(store), keys(store, topic)
        before = client.get(names["meta"])
        if before is None:
            return
        meta = before.split()
        meta[3] = repr(float(meta[3]) - seconds)
        meta[6] = repr(float(meta[6]) - seconds if float(meta[6]) else 0.0)
        client.set(names["meta"], " ".join(meta))
        entries = client.xrange(names["log"])
        client.delete(names["log"])
        for entry_id, fields in entries:
            time, rest = fields["e"].split(" ", 1)
            client.xadd(names["log"], {"e": f"{float(time) - seconds!r} {rest}"}, id=entry_id)
        client.zincrby(names["due"], -seconds, topic)
        for uid, time in client.zrange(names["seen"], 0, -1, withscores=True):
            client.zadd(names["seen"], {uid: time - seconds})


class TestOnOneServer(RedisContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[RedisStore]:
        store = RedisStore(redis_url, PATIENCE)
        yield store
        store.close()

    def client(self, store: Store) -> Any:
        return redis.Redis.from_url(store.location, decode_responses=True, protocol=2)


class TestOnACluster(RedisContract):
    examples = 20

    @pytest.fixture
    def store(self, redis_cluster: RedisCluster) -> Iterator[RedisStore]:
        store = RedisStore(redis_cluster.url, CLUSTER)
        yield store
        store.close()

    def client(self, store: Store) -> Any:
        first = store.location.split(",")[0]
        return redis.RedisCluster.from_url(first, decode_responses=True, protocol=2)

    def with_the_same_store_id(self, log: Subject) -> Subject:
        """Return a topic of the same partition; each partition has its own store id."""
        return next(o for o in (log.other() for _ in range(10_000)) if id_key(o) == id_key(log))


def test_the_redis_store_declares_its_capabilities() -> None:
    assert RedisStore.durable
    assert RedisStore.shared
    assert not RedisStore.supports_claims
    assert RedisStore("redis://localhost").alias is None


@pytest.mark.parametrize(
    ("location", "options", "complaint"),
    [
        ("", {}, "LOCATION is empty"),
        ("", CLUSTER, "LOCATION is empty"),
        ("127.0.0.1:6379", {}, "does not begin with redis:// or rediss:// or unix://; give a URL"),
        ("localhost:6379", {}, "does not begin with redis://"),
        ("http://localhost", {}, "does not begin with redis://"),
        ("redis://", {}, "names no host"),
        ("unix://", {}, "names no socket"),
        ("redis://localhost/first", {}, "'/first', which is not the number of a database"),
        ("redis://localhost?socket_timeout=9", {}, "parameter 'socket_timeout'"),
        ("redis://localhost:port", {}, "cannot be read"),
        ("redis://localhost?db=-1", {}, "names the database -1, and they count from 0"),
        ("redis://localhost/-1", {}, "names the database -1, and they count from 0"),
        ("redis://localhost?db=x", {}, "has an invalid value for 'db'"),
        (
            "redis://localhost?ssl_ca_certs=/x",
            {},
            "'ssl_ca_certs', which needs TLS and so the sche",
        ),
        ("unix:///x?ssl_cert_reqs=none", {}, "'ssl_cert_reqs', which needs TLS"),
        (
            "rediss://localhost?ssl_ca_cert=/x",
            {},
            "parameter 'ssl_ca_cert'; known are db, ssl_ca_c",
        ),
        ("rediss://localhost?ssl_ca_certs=", {}, "'ssl_ca_certs' without a value"),
        ("rediss://localhost?ssl_validate_ocsp=1", {}, "parameter 'ssl_validate_ocsp'; known"),
        ("rediss://localhost?ssl_password=x", CLUSTER, "parameter 'ssl_password'; known"),
        ("rediss://localhost?ssl_cert_reqs=bogus", {}, "Requirements Flag: bogus"),
        ("rediss://localhost?ssl_min_version=7", {}, "TLS parameters that cannot be used"),
        ("rediss://localhost?ssl_ciphers=NOPE", {}, "TLS parameters that cannot be used"),
        ("unix:///tmp/redis.sock", CLUSTER, "does not begin with redis:// or rediss://"),
        ("redis://localhost/1", CLUSTER, "which a cluster does not have"),
        ("redis://localhost", {"timeuot": 1}, "no option 'timeuot'; it has prefix, timeout, keep"),
        ("redis://localhost", {"timeout": 0}, "more than 0 and at most 10"),
        ("redis://localhost", {"keepalive": 0}, "whole seconds from 1 to 3600"),
        ("redis://localhost", {"keepalive": 1.5}, "whole seconds from 1 to 3600"),
        ("redis://localhost", {"timeout": 60}, "more than 0 and at most 10"),
        ("redis://localhost", {"timeout": "2"}, "more than 0 and at most 10"),
        ("redis://localhost", {"timeout": True}, "more than 0 and at most 10"),
        ("redis://localhost", {"prefix": ""}, "without braces and spaces"),
        ("redis://localhost", {"prefix": "a{b"}, "without braces and spaces"),
        ("redis://localhost", {"prefix": 3}, "without braces and spaces"),
        ("redis://localhost", {"cluster": "yes"}, "neither True nor False"),
    ],
)
def test_the_redis_store_refuses_invalid_locations_and_options(
    location: str, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(complaint)):
        RedisStore(location, options)


def test_an_old_redis_py_is_refused_with_the_command_that_updates_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis, "__version__", "5.2.1")
    with pytest.raises(
        ImproperlyConfigured, match=r"redis-py 8 or newer, and 5\.2\.1 is .*\[redis"
    ):
        RedisStore("redis://localhost")


def test_the_error_of_a_refused_location_contains_no_password() -> None:
    for location in ("redis://:secret@localhost/x", "redis://:secret@localhost?a=1", "secret"):
        with pytest.raises(ImproperlyConfigured) as caught:
            RedisStore(location)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "redis://localhost",
        "redis://localhost:6380/3",
        "redis://user:p%40ss@localhost?db=2",
        "rediss://localhost?ssl_cert_reqs=required",
        "rediss://localhost?ssl_ca_certs=/x&ssl_check_hostname=no&ssl_min_version=771&ssl_password=y",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_the_redis_store_accepts_a_url_without_connecting(location: str) -> None:
    RedisStore(location, {"prefix": "shop", "timeout": 1})


def test_the_redis_store_works_over_a_unix_socket(redis_path: Path, tmp_path: Path) -> None:
    # Not in pytest's folder: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        path = f"{short}/redis.sock"
        with RedisServer(redis_path, tmp_path / "redis", unixsocket=path):
            store = RedisStore(f"unix://{path}", PATIENCE)
            assert store.append("t", [Draft("x", "1")]).kept == 1
            assert asyncio.run(store.aheads(["t"]))["t"].seq == 1
            store.close()


def test_stores_with_other_prefixes_or_databases_share_nothing(redis_server: RedisServer) -> None:
    stores = [
        RedisStore(redis_server.url, PATIENCE),
        RedisStore(redis_server.url, PATIENCE | {"prefix": "shop"}),
        RedisStore(redis_server.url.removesuffix("0") + "1", PATIENCE),
    ]
    epochs = set()
    for store in stores:
        assert list(store.topics()) == []
        appended = store.append("t", [Draft("x", "1")])
        assert appended.kept == 1
        epochs.add(appended.previous.epoch)
        store.close()
    assert len(epochs) == 3


def test_all_keys_begin_with_the_prefix_and_a_topics_keys_share_a_hash_tag(
    redis_cluster: RedisCluster, redis_server: RedisServer
) -> None:
    store = RedisStore(redis_server.url, PATIENCE | {"prefix": "shop"})
    store.append("orders.42", [Draft("x", "1", id="a")])
    expected = keys(store, "orders.42")
    del expected["forgotten"]  # nothing was
    names = {*expected.values(), "shop:{0}:site"}
    assert set(redis_server.client.keys("*")) == names
    store.close()
    cluster = RedisStore(redis_cluster.url, CLUSTER)
    node = redis_cluster.nodes[0].client
    slots = {}
    for topic in ("orders.42", "orders.43", "user.7", "a", "b"):
        names = keys(cluster, topic).values()
        assert len({node.execute_command("CLUSTER", "KEYSLOT", name) for name in names}) == 1
        slots[topic] = node.execute_command("CLUSTER", "KEYSLOT", next(iter(names)))
    assert len(set(slots.values())) > 1
    cluster.close()


def test_the_topics_of_a_cluster_are_on_all_of_its_nodes(redis_cluster: RedisCluster) -> None:
    store = RedisStore(redis_cluster.url, CLUSTER | {"prefix": "spread"})
    names = {f"t{number}" for number in range(60)}
    for name in names:
        store.append(name, [Draft("x", "1")])
    for node in redis_cluster.nodes:
        assert node.client.keys("spread:*:meta:*")
    assert set(store.topics()) == names
    assert {name: head.seq for name, head in store.heads(names).items()} == dict.fromkeys(names, 1)
    store.close()


def test_a_read_of_a_large_log_transfers_little_more_than_it_returns(
    redis_server: RedisServer,
) -> None:
    store = RedisStore(redis_server.url, PATIENCE)
    start = store.append("t", [Draft("x", f'"{"x" * 50_000}"')] * 300).previous
    before = redis_server.client.info("stats")["total_net_output_bytes"]  # type: ignore[index]
    assert len(store.read("t", start).events) == 5  # 256 KB
    after = redis_server.client.info("stats")["total_net_output_bytes"]  # type: ignore[index]
    assert after - before < 5_000_000
    store.close()


def test_seen_ids_expire(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, PATIENCE)
    seen = keys(store, "t")["seen"]
    store.append("t", [Draft("x", "1", id="a"), Draft("y", "1")])
    assert redis_server.client.zcard(seen) == 1
    ttl = redis_server.client.ttl(seen)
    assert isinstance(ttl, int)
    assert SEEN_SECONDS <= ttl <= SEEN_SECONDS + 60
    redis_server.client.zadd(seen, {"a": 1.0})
    store.append("t", [Draft("z", "1", id="b")])
    assert redis_server.client.zrange(seen, 0, -1) == ["b"]
    store.close()


def test_logs_of_an_earlier_version_are_added_to_the_index_and_are_due(
    redis_server: RedisServer,
) -> None:
    store = RedisStore(redis_server.url, PATIENCE | {"prefix": "earlier"})
    for topic in ("a", "b"):
        store.append(topic, [Draft("x", "1")])
    redis_server.client.delete(keys(store, "a")["due"])
    assert set(store.due()) == {"a", "b"}
    for topic in ("a", "b"):
        store.trim(topic, Retention(10, 100.0))
    assert list(store.due()) == []
    store.close()
