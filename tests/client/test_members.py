"""Who is on a topic, as a Python client is told."""

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
    """Iterates over the topic and notes in which order it is told what."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.told: list[Any] = []
        self.events = client.subscribe(TOPIC, on_members=self.tell, **options)
        self.task = asyncio.create_task(self._read())

    def tell(self, members: list[Member]) -> None:
        self.told.append(keys(members))

    async def _read(self) -> None:
        async for event in self.events:
            self.told.append(event.data)


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


def test_the_list_is_told_first_and_after_each_change() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        assert reader.events.members is None
        for frame in (listing(4, 1, 2), change("join", 3, 5), change("leave", 1, 6)):
            server.link.say(frame)
            await passing(1)
        assert reader.told == [[1, 2], [1, 2, 3], [2, 3]]
        assert reader.events.members == [
            Member("user.2", "2", {"name": "n2"}),
            Member("user.3", "3", {"name": "n3"}),
        ]

    with_reader(story)


def test_what_the_list_has_already_is_no_news() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(change("join", 9, 3))  # before the list, which has it or had it
        server.link.say(listing(4, 1, 2))
        await passing(1)
        server.link.say(change("join", 2, 4))
        server.link.say(change("leave", 1, 3))
        server.link.say(listing(4, 1, 2))
        await passing(1)
        assert reader.told == [[1, 2]]

    with_reader(story)


def test_a_long_list_comes_in_parts_and_is_told_when_it_is_whole() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1, 2, more=True))
        server.link.say(listing(4, 3, more=True))
        await passing(1)
        assert reader.told == []
        server.link.say(listing(4, 4))
        await passing(1)
        assert reader.told == [[1, 2, 3, 4]]

    with_reader(story)


def test_a_list_that_was_cut_off_leaves_nothing_behind() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1, 2, more=True))
        await passing(1)
        server.link.cut()
        await passing(30)
        server.link.say(listing(4, 3))
        await passing(1)
        server.link.say(listing(6, 5, more=True))  # of another place, as the next one
        server.link.say(listing(7, 6))
        await passing(1)
        assert reader.told == [[3], [6]]

    with_reader(story)


def test_a_missed_change_brings_the_list_anew() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.link.say(listing(4, 1))
        server.link.say(change("join", 3, 6))
        await passing(10)
        asked = [frame["type"] for frame in server.sent if frame["type"] != "members"]
        assert asked == ["subscribe", "unsubscribe", "subscribe"]
        server.link.say(listing(6, 1, 2, 3))
        await passing(1)
        assert reader.told == [[1], [1, 2, 3]]

    with_reader(story)


def test_events_and_members_do_not_disturb_each_other() -> None:
    async def story(server: FakeServer, reader: Reader) -> None:
        server.publish()
        server.link.say(listing(1, 1))
        server.publish()
        await passing(1)
        assert reader.told == [1, [1], 2]
        assert reader.events.cursor == server.cursor(TOPIC)

    with_reader(story)


def test_a_topic_is_followed_without_asking_for_its_members() -> None:
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


def test_a_reader_that_is_behind_is_told_the_newest_list_once() -> None:
    server = FakeServer()

    async def story() -> None:
        told: list[list[int] | None] = []
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=lambda members: told.append(keys(members)))
            await passing(1)
            server.link.say(listing(0))
            for pk in range(1, 6):
                server.link.say(change("join", pk, pk))
            server.publish()
            await passing(1)
            assert await take(events, 1) == [1]
            assert told == [[1, 2, 3, 4, 5]]

    play(story())


def test_a_callback_may_be_a_coroutine_and_is_called_again_if_it_failed() -> None:
    server = FakeServer()

    async def story() -> None:
        told: list[list[int] | None] = []

        async def tell(members: list[Member]) -> None:
            await asyncio.sleep(0)
            told.append(keys(members))
            if len(told) == 1:
                raise ZeroDivisionError

        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=tell)
            await passing(1)
            server.link.say(listing(1, 1))
            await passing(1)
            with pytest.raises(ZeroDivisionError):
                await anext(events)
            server.link.say(change("join", 2, 2))
            server.publish()
            await passing(1)
            assert await take(events, 1) == [1]
        assert told == [[1], [1, 2]]

    play(story())


def test_a_hole_still_raises_where_members_are_listened_to() -> None:
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


def test_who_wants_members_of_a_topic_without_presence_is_told_so() -> None:
    server = FakeServer()
    refusal = {"type": "error", "code": "unsupported", "message": "set `presence = True`"}
    server.answer = lambda frame: refusal if frame["type"] == "members" else None

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, on_members=lambda members: None)
            with pytest.raises(CommandRefused, match=r"unsupported: orders\.42: set `presence"):
                await anext(events)
            async with client.subscribe(TOPIC):
                pass  # who does not want them may follow it

    play(story())


def test_members_are_asked_for_once_without_following() -> None:
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
