"""Two sites that are given one Redis: the second one refuses to share the first one's logs."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from realtime.exceptions import ForeignStore, StoreUnavailable
from realtime.protocol.events import Cursor, Draft
from realtime.stores import get_store
from realtime.stores.base import Node, Retention
from realtime.stores.redis import RedisStore, clients
from tests.support.redis import TOPIC, RedisCluster, RedisServer, redis_settings
from tests.support.server import Server, connect
from tests.support.waiting import wait_until

PATIENCE = {"timeout": 10.0}  # so that a busy machine does not look like a fault
X = [Draft("x", "1")]
SITE_KEY = "realtime:{0}:site"
START = Cursor("epoch", 0, 0)

OPERATIONS: dict[str, Callable[[RedisStore], Any]] = {
    "append": lambda store: store.append("t", X),
    "aappend": lambda store: asyncio.run(store.aappend("t", X)),
    "heads": lambda store: store.heads(["t"]),
    "aheads": lambda store: asyncio.run(store.aheads(["t"])),
    "read": lambda store: store.read("t", START),
    "aread": lambda store: asyncio.run(store.aread("t", START)),
    "trim": lambda store: store.trim("t", Retention(1, 1.0)),
    "delete": lambda store: store.delete("t"),
    "topics": lambda store: list(store.topics()),
    "beat": lambda store: store.beat(Node("n", "host", 1, "1.0"), is_known=False),
    "change_members": lambda store: store.change_members("t", "n", {"user.1": "{}"}, []),
}

OpenSite = Callable[..., RedisStore]


@pytest.fixture
def open_site(redis_server: RedisServer) -> Iterator[OpenSite]:
    """Open the store of a site, as a process that starts with a SECRET_KEY and older ones does."""
    with ExitStack() as stack:

        def open_site(
            key: str, *older: str, url: str = redis_server.url, **options: object
        ) -> RedisStore:
            # The keys are read when a store is used: the latest site's are set.
            stack.enter_context(override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=older))
            store = RedisStore(url, PATIENCE | options)
            stack.callback(store.close)
            return store

        yield open_site


def test_a_site_refuses_a_redis_that_holds_another_sites_logs(
    redis_server: RedisServer, open_site: OpenSite
) -> None:
    open_site("production").append("t", X)
    meta = "realtime:{0}:meta:t"
    before = {*redis_server.client.keys("*"), redis_server.client.get(meta)}
    staging = open_site("staging")
    for name, operation in OPERATIONS.items():
        with pytest.raises(ForeignStore) as caught:
            operation(staging)
        text = str(caught.value)
        assert "this Redis holds the logs of another site" in text, name
        for remedy in ('OPTIONS["prefix"]', "SECRET_KEY_FALLBACKS", repr(SITE_KEY)):
            assert remedy in text
    after = {*redis_server.client.keys("*"), redis_server.client.get(meta)}
    assert after == before, "the other site's data was changed"


def test_a_refused_process_goes_on_once_the_key_that_the_error_names_is_deleted(
    redis_server: RedisServer, open_site: OpenSite
) -> None:
    open_site("old key").append("t", X)
    store = open_site("new key, and no fallbacks")
    for _ in range(2):
        with pytest.raises(ForeignStore):
            store.append("t", X)
    redis_server.client.delete(SITE_KEY)
    assert [event.seq for event in store.append("t", X).events] == [2]


def test_two_sites_share_a_redis_with_prefixes_of_their_own(open_site: OpenSite) -> None:
    open_site("production", prefix="production").append("t", X)
    assert open_site("staging", prefix="staging").append("t", X).events[0].seq == 1


def test_two_sites_share_a_redis_with_database_numbers_of_their_own(
    redis_server: RedisServer, open_site: OpenSite
) -> None:
    open_site("production").append("t", X)
    url = f"redis://127.0.0.1:{redis_server.port}/1"
    assert open_site("staging", url=url).append("t", X).events[0].seq == 1


def test_a_site_goes_on_after_its_secret_key_was_rotated(open_site: OpenSite) -> None:
    open_site("first").append("t", X)
    assert open_site("second", "first").append("t", X).events[0].seq == 2
    assert open_site("second").append("t", X).events[0].seq == 3, "the fallback can be removed"
    assert open_site("third", "second").append("t", X).events[0].seq == 4


def test_a_rotated_key_can_be_rolled_back(open_site: OpenSite) -> None:
    """Processes that know the previous key alone also run while a rotation is deployed."""
    open_site("first").append("t", X)
    open_site("second", "first").append("t", X)
    assert open_site("first").append("t", X).events[0].seq == 3
    assert open_site("second", "first").append("t", X).events[0].seq == 4


def test_a_key_from_before_the_last_rotation_is_another_sites(open_site: OpenSite) -> None:
    open_site("first").append("t", X)
    open_site("second", "first").append("t", X)
    open_site("third", "second").append("t", X)
    with pytest.raises(ForeignStore):
        open_site("first").append("t", X)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["flushed", "restarted empty"])
def test_a_redis_that_lost_its_data_gets_the_fingerprint_again(
    redis_server: RedisServer,
    open_site: OpenSite,
    monkeypatch: pytest.MonkeyPatch,
    is_restarted: bool,
) -> None:
    monkeypatch.setattr(clients, "CLAIM_SECONDS", 0.0)
    store = open_site("production")
    store.append("t", X)
    fingerprint = redis_server.client.get(SITE_KEY)
    if is_restarted:
        redis_server.restart()
    else:
        redis_server.client.flushall()
    assert store.append("t", X).events[0].seq == 1
    assert redis_server.client.get(SITE_KEY) == fingerprint
    with pytest.raises(ForeignStore):
        open_site("staging").append("t", X)


def test_a_running_process_notices_that_another_site_took_its_redis(
    redis_server: RedisServer, open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLAIM_SECONDS", 0.0)
    first = open_site("production")
    first.append("t", X)
    redis_server.client.flushall()
    open_site("staging").append("t", X)
    with override_settings(SECRET_KEY="production"), pytest.raises(ForeignStore):
        first.append("t", X)


def test_the_fingerprint_is_not_compared_with_every_call(
    redis_server: RedisServer, open_site: OpenSite
) -> None:
    store = open_site("production")
    store.append("t", X)

    async def clocks() -> None:
        await asyncio.gather(*(store.aclock() for _ in range(20)))

    redis_server.client.config_resetstat()
    for _ in range(20):
        store.clock()
    asyncio.run(clocks())
    statistics: Any = redis_server.client.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] <= 42  # one may be sent again with its text


def test_the_fingerprint_contains_no_key(redis_server: RedisServer, open_site: OpenSite) -> None:
    open_site("the newest secret", "the previous secret").append("t", X)
    found: Any = redis_server.client.get(SITE_KEY)
    first, second = found.split(" ")
    assert len(first) == len(second) == 32
    assert set(first + second) <= set("0123456789abcdef")


def test_a_cluster_works_while_the_node_with_the_fingerprint_is_away(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CLAIM_SECONDS", 0.0)
    options: dict[str, object] = {"cluster": True, "prefix": "away"}
    store = RedisStore(redis_cluster.url, options | PATIENCE)
    hasty = RedisStore(redis_cluster.url, options | {"timeout": 0.3})
    topics = [f"t{number}" for number in range(40)]
    for topic in topics:
        store.append(topic, X)
    (away,) = (node for node in redis_cluster.nodes if node.client.keys("away:*:site"))
    others = [node for node in redis_cluster.nodes if node is not away]
    (elsewhere, *_) = (t for t in topics for n in others if n.client.keys(f"away:*:meta:{t}"))
    with override_settings(SECRET_KEY="staging"), pytest.raises(ForeignStore):
        RedisStore(redis_cluster.url, options | PATIENCE).append(elsewhere, X)
    wait_until(lambda: hasty.append(elsewhere, X), "it has compared the fingerprint")
    away.pause()
    try:
        assert hasty.append(elsewhere, X).events[0].seq == 3
        assert asyncio.run(hasty.aappend(elsewhere, X)).events[0].seq == 4
        new = RedisStore(redis_cluster.url, options | {"timeout": 0.3})
        with pytest.raises(StoreUnavailable):
            new.append(elsewhere, X)
    finally:
        away.resume()
    for opened in (store, hasty, new):
        opened.close()


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["production", "staging"])
def test_check_with_a_database_names_a_redis_of_another_site(
    redis_server: RedisServer, open_site: OpenSite, key: str
) -> None:
    open_site("production").append("t", X)
    with override_settings(SECRET_KEY=key, REALTIME=redis_settings(redis_server.url)["REALTIME"]):
        without = {message.id for message in run_checks()}
        found = {m.id: m.msg for m in run_checks(databases=["default"]) if m.id not in without}
        get_store().close()
    if key == "production":
        assert found == {}
    else:
        assert list(found) == ["realtime.E009"]
        assert "holds the logs of another site" in found["realtime.E009"]


@pytest.mark.django_db
def test_check_with_a_database_says_nothing_about_a_redis_that_is_away(
    redis_server: RedisServer,
) -> None:
    redis_server.kill9()
    with override_settings(REALTIME=redis_settings(redis_server.url)["REALTIME"]):
        assert "realtime.E009" not in {m.id for m in run_checks(databases=["default"])}


PUBLISH = f"""
from django.db import transaction
from realtime import PublishError, log, publish
from realtime.outbox import relay_stale
with transaction.atomic():
    publish({TOPIC!r}, "kept", 1)
print(log.since({TOPIC!r})[0])  # a time, not a cursor
try:
    publish({TOPIC!r}, "lost", 2)
except PublishError as error:
    print(error)
"""


async def test_a_refused_site_waits_as_in_an_outage_and_goes_on_without_a_restart(
    redis_server: RedisServer, tmp_path: Path, open_site: OpenSite
) -> None:
    """Its requests do not break, its clients retry, and what it published in atomic() arrives."""
    open_site("production").append("t", X)
    settings = redis_settings(redis_server.url) | {"SECRET_KEY": "staging"}
    with Server(tmp_path, settings=settings) as site:
        printed = (await asyncio.to_thread(site.run, PUBLISH)).splitlines()
        assert printed[0] == "@"
        assert "holds the logs of another site" in printed[1]
        async with connect(site) as client:
            for _ in range(3):
                refused = await client.ask(type="subscribe", topic=TOPIC)
                assert (refused["code"], refused["retry"]) == ("unavailable", True)
        wait_until(lambda: "logs of another site" in site.log.read_text(), "its log says so")
        assert site.log.read_text().count("another site") < 10, "its log is flooded"
        redis_server.client.delete(SITE_KEY)
        async with connect(site) as client:
            await client.subscribe(TOPIC, last=5)
            assert [event["data"] for event in await client.events(1)] == [1]
