"""Reading the topics of a URL, and following them."""

import asyncio
from typing import Any

import pytest
from django.test import override_settings

from realtime.auth.users import Identity
from realtime.consumers.http import HttpError, Request
from realtime.consumers.http_topics import (
    LOST,
    FollowedTopics,
    TopicQuery,
    permitted_topics,
    read_query,
)
from realtime.exceptions import StoreUnavailable
from realtime.hub.connection import Connection
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor
from realtime.writers.stream import CollectingWriter
from tests.consumers.exchange import Web, scope_of
from tests.hub.support import TOPIC

OTHER = "public.other"
A, B = Cursor("e", 5, 1), Cursor("f", 7, 2)
BOTH = compose([entry("public.a", A), entry("public.b", B)])
NOBODY = Identity(None)


def query_of(query: str, last_id: str | None = None) -> TopicQuery:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    return read_query(Request(scope_of(f"sse?{query}", headers=headers)), 3)


@pytest.mark.parametrize(
    ("query", "last_id", "starts"),
    [
        ("topic=public.a", None, {"public.a": None}),
        ("topic=public.a&topic=public.a", None, {"public.a": None}),
        (f"topic=public.a&since={A}", None, {"public.a": A}),
        ("topic=public.a&topic=public.b&since=@5.5", None, {"public.a": 5.5, "public.b": 5.5}),
        (f"topic=public.a&topic=public.b&since={BOTH}", None, {"public.a": A, "public.b": B}),
        (f"topic=public.a&topic=public.c&since={BOTH}", None, {"public.a": A, "public.c": None}),
        (f"topic=public.b&since={BOTH}", None, {"public.b": B}),
        (f"topic=public.b&topic=x&since={BOTH}&since=", None, {"public.b": B, "x": None}),
        ("topic=public.c", BOTH, {"public.c": None}),
        (f"topic=public.c&since={A}", BOTH, {"public.c": A}),
        (f"topic=public.a&since={B}", str(A), {"public.a": A}),
        ("topic=public.c&topic=public.a&since=@5", BOTH, {"public.c": 5.0, "public.a": A}),
        (f"topic=public.a&since={A}", "", {"public.a": A}),
        (f"topic=public.a&since={A}", "nonsense", {"public.a": LOST}),
        ("topic=public.a&topic=public.b&since=@5", str(A), {"public.a": LOST, "public.b": LOST}),
    ],
)  # fmt: skip
def test_the_url_and_last_event_id_set_the_start_of_each_topic(
    query: str, last_id: str | None, starts: dict[str, Any]
) -> None:
    assert query_of(query, last_id).starts == starts
    assert list(query_of(query, last_id).starts) == list(starts)


def test_an_empty_last_counts_as_none() -> None:
    assert query_of("topic=public.a&last=&since=@5") == query_of("topic=public.a&since=@5")
    assert query_of("topic=public.a&last=&v=&wait=").last == {}


@pytest.mark.parametrize("field", ["lastEventId", "Last-Event-ID", "evs_last_event_id"])
def test_a_last_event_id_in_the_url_counts_like_the_header_which_takes_precedence(
    field: str,
) -> None:
    assert query_of(f"topic=public.a&since={B}&{field}={A}").starts == {"public.a": A}
    assert query_of(f"topic=public.a&{field}={B}", str(A)).starts == {"public.a": A}
    assert query_of(f"topic=public.a&{field}=nonsense").starts == {"public.a": LOST}
    assert query_of(f"topic=public.a&{field}=").starts == {"public.a": None}


@pytest.mark.parametrize("cursor", [str(A), BOTH])
def test_a_cursor_in_an_unknown_field_is_refused_instead_of_ignored(cursor: str) -> None:
    with pytest.raises(HttpError, match="the field 'resume' of the query has a cursor") as caught:
        query_of(f"topic=public.a&resume={cursor}")
    assert (caught.value.status, caught.value.code) == (400, "bad_cursor")
    assert query_of("topic=public.a&_=1763801234.5&t=@5").starts == {"public.a": None}


def test_cursors_are_the_starts_that_are_cursors() -> None:
    assert query_of("topic=public.a&topic=public.c&since=@5", BOTH).cursors == {"public.a": A}


def test_a_bad_since_is_refused_even_with_a_last_event_id() -> None:
    with pytest.raises(HttpError, match="bad_cursor"):
        query_of("topic=public.a&since=nonsense", str(A))


@pytest.mark.parametrize(
    "query",
    [
        f"topic=public.c&since={BOTH}",
        f"topic=public.a&topic=public.c&since={BOTH}&since={BOTH}",
    ],
)
def test_a_composite_since_for_one_topic_must_contain_it(query: str) -> None:
    with pytest.raises(HttpError, match="does not contain 'public\\.c'") as caught:
        query_of(query)
    assert (caught.value.code, caught.value.topic) == ("bad_cursor", "public.c")


@pytest.mark.parametrize("count", [100, 600, 2_000])
def test_every_topic_within_the_limit_can_have_its_own_start(count: int) -> None:
    names = [f"public.n{number}" for number in range(count)]
    query = "&".join(f"topic={name}&since={A}&last=" for name in names)
    request = Request(scope_of(f"poll?{query}&v=1&wait=1&limit=5"))
    with override_settings(REALTIME={"LIMITS": {"topics": count}}):
        assert read_query(request, count).starts == dict.fromkeys(names, A)


def test_a_query_with_more_fields_than_topics_can_need_is_refused() -> None:
    with pytest.raises(HttpError, match="400 bad_frame: the query has more than 1300 fields"):
        query_of("&".join(["topic=public.a"] * 1_301))


async def test_only_topics_that_the_client_may_follow_are_permitted() -> None:
    names = ["public.a", "private.1", "no.such", "public.b"]
    permitted, refused = await permitted_topics(NOBODY, names)
    assert [str(topic) for topic in permitted] == ["public.a", "public.b"]
    assert [(name, error.code) for name, error in refused.items()] == [
        ("private.1", "forbidden"),
        ("no.such", "forbidden"),
    ]
    only = Identity(None, frozenset(["public.b"]))
    permitted, refused = await permitted_topics(only, names)
    assert [str(topic) for topic in permitted] == ["public.b"]
    with pytest.raises(HttpError, match="403 forbidden"):
        await permitted_topics(NOBODY, ["private.1", "no.such"])


def followers(web: Web) -> dict[str, int]:
    return {name: live.followers for name, live in web.scene.hub.topics.items()}


def test_release_removes_each_follower_once(web: Web) -> None:
    async def follow() -> None:
        topics = await FollowedTopics.open(web.scene.hub, NOBODY, [TOPIC, OTHER])
        assert followers(web) == {TOPIC: 1, OTHER: 1}
        assert [name for name, _ in topics.heads()] == [TOPIC, OTHER]
        topics.release()
        topics.release()

    web.scene.run(follow())
    assert followers(web) == {TOPIC: 0, OTHER: 0}


def test_a_cancelled_open_releases_the_topics_that_have_joined(web: Web) -> None:
    """One topic is followed already, so it joins while the other waits for the store."""
    web.open(f"sse?topic={TOPIC}")

    async def cancel() -> None:
        web.scene.store.before = 1.0
        opening = asyncio.ensure_future(FollowedTopics.open(web.scene.hub, NOBODY, [TOPIC, OTHER]))
        for _ in range(50):
            await asyncio.sleep(0)
        assert followers(web) == {TOPIC: 2, OTHER: 1}
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()

    web.scene.run(cancel())
    web.scene.advance(2)
    assert followers(web) == {TOPIC: 1, OTHER: 0}


def test_a_failing_start_cancels_the_starts_of_other_topics(web: Web) -> None:
    for name in (TOPIC, OTHER):
        web.open(f"sse?topic={name}")
        web.scene.append(2, topic=name)
    store = web.scene.store

    async def locate(topic: str, **where: Any) -> Cursor:
        if topic == OTHER:
            await asyncio.Event().wait()
        raise StoreUnavailable("the store", "it is down")

    async def begin() -> list[str]:
        topics = await FollowedTopics.open(web.scene.hub, NOBODY, [TOPIC, OTHER])
        writer = CollectingWriter(10, 10_000)
        connection = Connection(topics.hub, None, writer, 10_000, lambda code: None)
        store.alocate = locate  # type: ignore[method-assign, assignment]
        with pytest.raises(StoreUnavailable):
            asked = query_of(f"topic={TOPIC}&topic={OTHER}&since=@0")
            await topics.subscribe(connection, asked, hold=1.0, visitor_id=None)
        connection.end()
        await asyncio.sleep(0)
        return [repr(task.get_coro()) for task in asyncio.all_tasks()]

    assert not [name for name in web.scene.run(begin()) if "object _start " in name]
    web.scene.advance(2)
    assert followers(web) == {TOPIC: 1, OTHER: 1}
