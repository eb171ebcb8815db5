"""The members of a topic, as a Python client receives them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from realtime.client import Client, CommandRefused, ConnectionEnded, EventsLost, Member
from realtime.client.links import Frame
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play, take


def fields(pk: int) -> dict[str, Any]:
    return {"id": f"user.{pk}", "user": str(pk), "info": {"name": f"n{pk}"}}


def listing(version: int, *pks: int, **more: Any) -> Frame:
    members = [fields(pk) for pk in pks]
    return {"type": "members", "topic": TOPIC, "members": members, "version": version, **more}


def change(kind: str, pk: int, version: int) -> Frame:
    return {"type": kind, "topic": TOPIC, "member": fields(pk), "version": version}


def keys(members: Sequence[Member] | None) -> list[int] | None:
    return None if members is None else [int(member.user or 0) for member in members]


class Reader:
    """Iterates over the topic and records the events and member lists that it receives."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.received: list[Any] = []
        self.events = client.subscribe(TOPIC, on_members=self.on_members, **options)
        self.task = asyncio.create_task(self._read())

    def on_members(self, members: list[Member]) -> None:
        self.received.append(keys(members))

    async def _read(self) -> None:
        async for event in self.events:
            self.received.append(event.data)


def with_reader(story: Callable[[FakeServer, Reader], Coroutine[Any, Any, None]]) -> None:
    server = FakeServer()

    async def run() -> None:
        async with FakeClient(server) as client:
            reader = Reader(client)
            await passing(1)
            await story(server, reader)
            await passing(1)
        await reader.task

    play(run())


def test_the_list_is_received_first_and_after_each_change() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        assert reader.events.members is None
        for frame in (listing(4, 1, 2), change("join", 3, 5), change("leave", 1, 6)):
            server.link.say(frame)
            await passing(1)
        assert reader.received == [[1, 2], [1, 2, 3], [2, 3]]
        assert reader.events.members == [
            Member("user.2", "2", {"name": "n2"}),
            Member("user.3", "3", {"name": "n3"}),
        ]

    with_reader(story)


def test_a_change_that_the_list_already_contains_is_ignored() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(change("join", 9, 3))  # before the list, which takes it into account
        server.link.say(listing(4, 1, 2))
        await passing(1)
        server.link.say(change("join", 2, 4))
        server.link.say(change("leave", 1, 3))
        server.link.say(listing(4, 1, 2))
        await passing(1)
        assert reader.received == [[1, 2]]

    with_reader(story)


def test_a_list_in_several_frames_is_received_when_it_is_complete() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1, 2, more=True))
        server.link.say(listing(4, 3, more=True))
        await passing(1)
        assert reader.received == []
        server.link.say(listing(4, 4))
        await passing(1)
        assert reader.received == [[1, 2, 3, 4]]

    with_reader(story)


def test_an_incomplete_list_is_discarded() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1, 2, more=True))
        await passing(1)
        server.link.cut()
        await passing(30)
        server.link.say(listing(4, 3))
        await passing(1)
        server.link.say(listing(6, 5, more=True))  # replaced by the next list
        server.link.say(listing(7, 6))
        await passing(1)
        assert reader.received == [[3], [6]]

    with_reader(story)


def test_the_list_is_fetched_again_after_a_missed_change() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1))
        server.link.say(change("join", 3, 6))
        await passing(10)
        asked = [frame["type"] for frame in server.sent if frame["type"] != "members"]
        assert asked == ["subscribe", "unsubscribe", "subscribe"]
        server.link.say(listing(6, 1, 2, 3))
        await passing(1)
        assert reader.received == [[1], [1, 2, 3]]

    with_reader(story)


def test_events_and_members_do_not_interfere_with_each_other() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.publish()
        server.link.say(listing(1, 1))
        server.publish()
        await passing(1)
        assert reader.received == [1, [1], 2]
        assert reader.events.cursor == server.cursor(TOPIC)

    with_reader(story)


def test_a_subscription_without_on_members_does_not_request_the_members() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            server.link.say(listing(1, 1))
            server.link.say(change("join", 2, 2))
            server.publish()
            assert await take(events, 1) == [1]
            assert keys(events.members) == [1, 2]
            assert [frame["type"] for frame in server.sent] == ["subscribe"]

    play(story())


def test_a_slow_reader_receives_only_the_newest_list() -> None:
    server = FakeServer()

    async def story() -> None:
        received: list[list[int] | None] = []
        async with FakeClient(server) as client:
            events = client.subscribe(
                TOPIC, on_members=lambda members: received.append(keys(members))
            )
            await passing(1)
            server.link.say(listing(0))
            for pk in range(1, 6):
                server.link.say(change("join", pk, pk))
            server.publish()
            await passing(1)
            assert await take(events, 1) == [1]
            assert received == [[1, 2, 3, 4, 5]]

    play(story())


def test_on_members_can_be_a_coroutine_function_and_is_called_again_if_it_failed() -> None:
    server = FakeServer()

    async def story() -> None:
        received: list[list[int] | None] = []

        async def on_members(members: list[Member]) -> None:
            await asyncio.sleep(0)
            received.append(keys(members))
            if len(received) == 1:
                raise ZeroDivisionError

        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=on_members)
            await passing(1)
            server.link.say(listing(1, 1))
            await passing(1)
            with pytest.raises(ZeroDivisionError):
                await anext(events)
            server.link.say(change("join", 2, 2))
            server.publish()
            await passing(1)
            assert await take(events, 1) == [1]
        assert received == [[1], [1, 2]]

    play(story())


def test_missing_events_still_raise_with_on_members() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=lambda members: None)
            await passing(1)
            cursor = str(server.cursor(TOPIC))
            server.link.say({"type": "reset", "topic": TOPIC, "cursor": cursor, "reason": "x"})
            await passing(1)
            with pytest.raises(EventsLost):
                await anext(events)

    play(story())


def test_on_members_for_a_topic_without_presence_raises() -> None:
    server = FakeServer()
    refusal = {"type": "error", "code": "unsupported", "message": "set `presence = True`"}
    server.answer = lambda frame: refusal if frame["type"] == "members" else None

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=lambda members: None)
            with pytest.raises(CommandRefused, match=r"unsupported: orders\.42: set `presence"):
                await anext(events)
            async with client.subscribe(TOPIC):
                pass  # without on_members, the topic can be followed

    play(story())


def test_beyond_the_servers_limit_there_is_a_number_instead_of_a_list() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        assert reader.events.member_count is None
        counts: list[int | None] = []
        for frame in (
            listing(1, 1, 2),
            listing(2, count=1_001),
            listing(9, count=1_001),
            listing(30, count=1_203),
            listing(800, 1, 2, 3),
            change("leave", 2, 801),
        ):
            server.link.say(frame)
            await passing(1)
            counts.append(reader.events.member_count)
        assert counts == [2, 1_001, 1_001, 1_203, 3, 2]
        assert reader.received == [[1, 2], [], [], [1, 2, 3], [1, 3]]

    with_reader(story)


def test_members_beyond_the_servers_limit_can_be_counted_and_listing_them_is_refused() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            server.answer = lambda frame: listing(4, count=1_203)
            assert await client.member_count(TOPIC) == 1_203
            with pytest.raises(CommandRefused, match=r"1203 members.*member_count\(\)") as refused:
                await client.members(TOPIC)
            assert refused.value.code == "too_many_members"
            server.answer = lambda frame: listing(4, 1, 2)
            assert await client.member_count(TOPIC) == 2

    play(story())


def test_members_can_be_listed_without_following_the_topic() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            server.answer = lambda frame: listing(4, 1, 2)
            assert keys(await client.members(TOPIC)) == [1, 2]
            assert [frame["type"] for frame in server.sent] == ["members"]

            def in_parts(frame: Frame) -> Frame:
                server.link.say({**listing(4, 1, more=True), "id": frame["id"]})
                server.link.say({**listing(4, 2, more=True), "id": frame["id"]})
                return listing(4, 3)

            server.answer = in_parts
            assert keys(await client.members(TOPIC)) == [1, 2, 3]
            server.answer = lambda frame: {"type": "error", "code": "unsupported", "message": "x"}
            with pytest.raises(CommandRefused, match="unsupported"):
                await client.members(TOPIC)
        with pytest.raises(ConnectionEnded):
            await client.members(TOPIC)

    play(story())
