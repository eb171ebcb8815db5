"""What dies in the middle, with clients on every node that check each number and each member."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Engine
from tests.support.server import DEADLINE, Client, Publisher, Server, connect
from tests.support.waiting import await_until

APPLICATION = "tests.chaos.application:application"
ROOM = "room.hall"


class Guest:
    """Somebody who is on a topic all the while, checks each frame, and comes back when cut.

    Attributes:
        seqs: of the events that came.
        members: names by member id.
        joins, leaves: names of those who came and went, as it was told.
        resets: how often it was reset.
    """

    def __init__(self, server: Server, headers: Mapping[str, str], topic: str = ROOM) -> None:
        self.server = server
        self.headers = headers
        self.topic = topic
        self.cursor: str | None = None
        self.seqs: list[int] = []
        self.members: dict[str, str] = {}
        self.joins: list[str] = []
        self.leaves: list[str] = []
        self.resets = 0
        self.subscribed = asyncio.Event()
        self._version = -1
        self._task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        while True:
            try:
                async with connect(self.server, additional_headers=self.headers) as client:
                    await self._follow(client)
            except (OSError, EOFError, TimeoutError):
                pass
            except Exception as error:
                if "websockets" not in type(error).__module__:
                    raise
            await asyncio.sleep(0)

    async def _follow(self, client: Client) -> None:
        await client.send(type="subscribe", id=1, topic=self.topic, since=self.cursor)
        while True:
            frame = await client.frame()
            if frame.get("topic") == self.topic:
                self._take(frame)

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "subscribed":
            self.resets += frame.get("recovered") is False
            self.cursor = frame["cursor"]
            self.subscribed.set()
        elif kind == "reset":
            self.resets += 1
            self.seqs, self.cursor = [], frame["cursor"]
        elif kind == "event":
            assert not self.seqs or frame["seq"] == self.seqs[-1] + 1, (self.seqs[-1:], frame)
            self.seqs.append(frame["seq"])
            self.cursor = frame["cursor"]
        elif kind == "members":
            self.members = {one["id"]: one["info"]["name"] for one in frame["members"]}
            self._version = frame["version"]
        elif kind in ("join", "leave"):
            assert frame["version"] == self._version + 1, (self._version, frame)
            self._version += 1
            id_, name = frame["member"]["id"], frame["member"]["info"]["name"]
            if kind == "join":
                self.members[id_] = name
                self.joins.append(name)
            else:
                del self.members[id_]
                self.leaves.append(name)
        else:
            raise AssertionError(frame)

    @property
    def names(self) -> list[str]:
        return sorted(self.members.values())

    async def sees(self, *names: str) -> None:
        """Wait until these are there, and nobody else."""
        await await_until(
            lambda: self._alive() and self.names == sorted(names),
            f"{names} are there",
            2 * DEADLINE,
        )

    async def until(self, seq: int) -> None:
        """Wait until the event with this number has come."""
        await await_until(
            lambda: self._alive() and self.seqs[-1:] == [seq], f"{seq} has come", 2 * DEADLINE
        )

    def _alive(self) -> bool:
        if self._task.done():
            self._task.result()
        return True

    async def leave(self) -> None:
        """Close, and raise what was wrong."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()


class House:
    """Nodes on one engine, and guests on them."""

    def __init__(self, servers: list[Server], stack: AsyncExitStack) -> None:
        self.servers = servers
        self._stack = stack
        self._headers: dict[str, Mapping[str, str]] = {}

    async def guest(self, name: str, server: Server) -> Guest:
        if name not in self._headers:
            self._headers[name] = await asyncio.to_thread(self.servers[0].sign_in, name)
        guest = Guest(server, self._headers[name])
        self._stack.push_async_callback(guest.leave)
        async with asyncio.timeout(DEADLINE):
            await guest.subscribed.wait()
        return guest


@pytest.fixture
async def house(engine: Engine, tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(engine.servers(tmp_path, 2, application=APPLICATION))
        yield House(servers, stack)


async def test_two_tabs_and_a_phone_on_two_nodes_are_one_member(house: House) -> None:
    home, away = house.servers
    watcher = await house.guest("watcher", home)
    tab, other = await house.guest("ann", home), await house.guest("ann", home)
    phone = await house.guest("ann", away)
    bob = await house.guest("bob", away)
    for guest in (watcher, tab, other, phone, bob):
        await guest.sees("ann", "bob", "watcher")
    await tab.leave()
    await phone.leave()
    await bob.leave()
    await watcher.sees("ann", "watcher")
    assert (watcher.joins.count("ann"), watcher.leaves) == (1, ["bob"])
    await other.leave()
    await watcher.sees("watcher")
    assert watcher.leaves == ["bob", "ann"]


async def test_a_killed_node_costs_one_leave_for_those_who_do_not_come_back(house: House) -> None:
    home, away = house.servers
    watcher = await house.guest("watcher", home)
    ann, bob = await house.guest("ann", away), await house.guest("bob", away)
    await watcher.sees("ann", "bob", "watcher")
    publisher = Publisher(home)
    await publisher.publish(ROOM, 5)
    await asyncio.gather(*(guest.until(5) for guest in (watcher, ann, bob)))
    away.kill9()
    ann.server = home  # a load balancer sends her there
    await publisher.publish(ROOM, 20)
    await watcher.sees("ann", "watcher")
    await asyncio.gather(*(guest.until(25) for guest in (watcher, ann)))
    assert watcher.leaves == ["bob"]
    assert ann.seqs == watcher.seqs == list(range(1, 26))
    assert (ann.resets, watcher.resets) == (0, 0)
    publisher.close()
    away.start()
    await watcher.sees("ann", "bob", "watcher")
    await bob.until(25)
    assert bob.seqs == list(range(1, 26))


async def test_a_node_that_stood_still_and_was_given_up_comes_back_with_its_members(
    house: House,
) -> None:
    home, away = house.servers
    watcher, ann = await house.guest("watcher", home), await house.guest("ann", away)
    await watcher.sees("ann", "watcher")
    assert away.process is not None
    away.process.send_signal(signal.SIGSTOP)
    try:
        await watcher.sees("watcher")
    finally:
        away.process.send_signal(signal.SIGCONT)
    await watcher.sees("ann", "watcher")
    await ann.sees("ann", "watcher")
    assert watcher.leaves == ["ann"]


async def test_a_node_whose_clock_is_an_hour_off_changes_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        right, wrong = stack.enter_context(engine.servers(tmp_path, 2, application=APPLICATION))
        wrong.stop()
        wrong.env["REALTIME_TEST_CLOCK_OFFSET"] = "3600"
        wrong.start()
        house = House([right, wrong], stack)
        watcher, ann = await house.guest("watcher", right), await house.guest("ann", wrong)
        for server, start in ((right, 0), (wrong, 5)):
            publisher = Publisher(server)
            stack.callback(publisher.close)
            await publisher.publish(ROOM, 5, "tick", start)
        for guest in (watcher, ann):
            await guest.until(10)
            await guest.sees("ann", "watcher")
        ages = (
            "from realtime.stores import get_store; print([n.age > 3 for n in get_store().nodes()])"
        )
        assert "[False, False]" in await asyncio.to_thread(wrong.run, ages)
        assert watcher.leaves == ann.leaves == []
        await ann.leave()
        await watcher.sees("watcher")
