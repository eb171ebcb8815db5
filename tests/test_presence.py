"""The members of a topic, read from Python, and how a user becomes a member."""

import datetime
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser

from realtime import Topic, register
from realtime.exceptions import InvalidTopicName, PresenceDisabled, StoreUnavailable, UnknownTopic
from realtime.presence import (
    INFO_BYTES,
    Member,
    acount,
    amembers,
    count,
    log_of,
    member_id,
    member_text,
    members,
)
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.topics import isolated, resolve


@dataclass
class User:
    pk: Any
    username: str = "ada"
    is_authenticated = True


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[-60:]
    return f"room.{name}"


@pytest.fixture
def info() -> Iterator[type[Topic]]:
    """A topic without `member_info()`, unless a test adds it."""
    with isolated():

        @register("described.<slug:name>")
        class DescribedTopic(Topic):
            name: str
            presence = True

        yield DescribedTopic


async def enter(room: str, *users: User, node: str = "a") -> None:
    topic = resolve(room)
    texts = {member_id(u, ""): await member_text(topic, u, member_id(u, "")) for u in users}
    await get_store().achange_members(presence_log(room), node, texts, [])


async def text_of(topic: Topic, user: Any, id: str = "connection.abc") -> dict[str, Any]:
    member: dict[str, Any] = json.loads(await member_text(topic, user, id))
    return member


@pytest.mark.django_db(transaction=True)
async def test_members_are_listed_in_the_order_in_which_they_joined(room: str) -> None:
    assert await amembers(room) == []
    await enter(room, User(7, "zoe"), User(3, "bo"))
    await enter(room, User(7, "zoe"), node="b")
    expected = [
        Member(id="user.7", user="7", info={"name": "zoe"}),
        Member(id="user.3", user="3", info={"name": "bo"}),
    ]
    assert await amembers(room) == await amembers(resolve(room)) == expected


@pytest.mark.django_db(transaction=True)
async def test_members_are_counted_without_a_limit(room: str) -> None:
    assert await acount(room) == 0
    await enter(room, User(7, "zoe"), User(3, "bo"))
    assert await acount(room) == 2
    assert await sync_to_async(count)(room) == 2


@pytest.mark.django_db(transaction=True)
def test_synchronous_code_gets_the_same_list(room: str) -> None:
    text = json.dumps({"id": "connection.x", "user": None, "info": [1]})
    get_store().change_members(presence_log(room), "a", {"connection.x": text}, [])
    assert members(room) == members(resolve(room)) == [Member("connection.x", None, [1])]


@pytest.mark.parametrize("ask", [members, log_of])
def test_a_topic_without_presence_is_refused_with_the_line_to_add(ask: Any) -> None:
    for topic in ("orders.1", resolve("orders.1")):
        with pytest.raises(PresenceDisabled, match="`presence = True` on OrderTopic"):
            ask(topic)


@pytest.mark.parametrize(
    ("name", "error"), [("nosuch.1", UnknownTopic), ("no such name", InvalidTopicName)]
)
async def test_a_name_of_no_topic_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        members(name)
    with pytest.raises(error):
        await amembers(name)


async def test_an_unreachable_store_raises(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(log: str) -> None:
        raise StoreUnavailable("the store", "it is not reachable")

    monkeypatch.setattr(get_store(), "amembers", fail)
    with pytest.raises(StoreUnavailable):
        await amembers(room)


@pytest.mark.parametrize(
    ("pk", "id"),
    [
        (7, "user.7"),
        (uuid.UUID(int=1), f"user.{uuid.UUID(int=1)}"),
        ("ada@example.org", "user.ada@example~2Eorg"),
        ("a.b", "user.a~2Eb"),
        ("ä b", "user.~C3~A4~20b"),
    ],
)
async def test_a_members_id_is_the_name_of_the_users_own_topic(room: str, pk: Any, id: str) -> None:
    assert member_id(User(pk), "abc") == id
    member = await text_of(resolve(room), User(pk), id)
    assert member == {"id": id, "user": str(pk), "info": {"name": "ada"}}


@pytest.mark.parametrize("visitor", [None, AnonymousUser()])
async def test_an_anonymous_members_id_is_that_of_the_connection(room: str, visitor: Any) -> None:
    assert member_id(visitor, "abc") == "connection.abc"
    assert (await text_of(resolve(room), visitor))["user"] is None


async def test_members_of_a_topic_without_member_info_have_no_info(
    info: type[Topic],
) -> None:
    member = await text_of(resolve("described.x"), User(7), "user.7")
    assert member == {"id": "user.7", "user": "7", "info": None}


async def test_info_can_be_any_data_of_events_and_come_from_a_coroutine(info: Any) -> None:
    async def answer(self: Any, user: Any) -> dict[str, Any]:
        return {"since": datetime.date(2026, 11, 22), "key": user.pk, "text": "naïve </script>"}

    info.member_info = answer
    member = await text_of(resolve("described.x"), User(uuid.UUID(int=5)))
    assert member["info"] == {
        "since": "2026-11-22",
        "key": str(uuid.UUID(int=5)),
        "text": "naïve </script>",
    }


@pytest.mark.parametrize(
    ("answer", "logged"),
    [
        (lambda user: 1 / 0, "ZeroDivisionError"),
        (lambda user: {"user": object()}, "object"),
        (lambda user: {"x": float("nan")}, "nan"),
        (lambda user: "x" * (INFO_BYTES + 1), str(INFO_BYTES)),
    ],
    ids=["raises", "is not serialisable", "is not a number", "is too large"],
)
async def test_info_that_fails_is_logged_and_the_member_has_none(
    info: Any, answer: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    info.member_info = lambda self, user: answer(user)
    with caplog.at_level(logging.ERROR, "realtime"):
        for _ in range(3):  # it is logged once a minute
            member = await text_of(resolve("described.x"), User(7), "user.7")
    assert member == {"id": "user.7", "user": "7", "info": None}
    (record,) = caplog.records
    text = logging.Formatter("%(message)s").format(record)
    assert "member_info()" in text
    assert "DescribedTopic(name='x')" in text
    assert logged in text
    assert "LIMITS" not in text, "no setting raises the limit of member_info()"


async def test_the_largest_info_fits(info: Any) -> None:
    info.member_info = lambda self, user: "x" * (INFO_BYTES - 2)  # without the quotes
    assert len((await text_of(resolve("described.x"), User(7)))["info"]) == INFO_BYTES - 2
