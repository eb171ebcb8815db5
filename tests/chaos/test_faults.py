"""What dies in the middle, with clients on every node that check each number and each member."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import Engine
from tests.chaos.guests import APPLICATION, ROOM, House
from tests.support.server import Publisher


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
