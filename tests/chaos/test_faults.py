"""Nodes that are killed, suspended or have a wrong clock, under clients that check each frame."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.clients import APPLICATION, ROOM, Site
from tests.chaos.conftest import Engine
from tests.support.server import Publisher


@pytest.fixture
async def site(engine: Engine, tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(engine.servers(tmp_path, 2, application=APPLICATION))
        yield Site(servers, stack)


async def test_two_tabs_and_a_phone_on_two_nodes_are_one_member(site: Site) -> None:
    first, second = site.servers
    watcher = await site.connect("watcher", first)
    tab, other = await site.connect("ann", first), await site.connect("ann", first)
    phone = await site.connect("ann", second)
    bob = await site.connect("bob", second)
    for client in (watcher, tab, other, phone, bob):
        await client.wait_for_members("ann", "bob", "watcher")
    await tab.leave()
    await phone.leave()
    await bob.leave()
    await watcher.wait_for_members("ann", "watcher")
    assert (watcher.joins.count("ann"), watcher.leaves) == (1, ["bob"])
    await other.leave()
    await watcher.wait_for_members("watcher")
    assert watcher.leaves == ["bob", "ann"]


async def test_members_of_a_killed_node_leave_once_unless_they_reconnect(site: Site) -> None:
    first, second = site.servers
    watcher = await site.connect("watcher", first)
    ann, bob = await site.connect("ann", second), await site.connect("bob", second)
    await watcher.wait_for_members("ann", "bob", "watcher")
    publisher = Publisher(first)
    await publisher.publish(ROOM, 5)
    await asyncio.gather(*(client.wait_for_event(5) for client in (watcher, ann, bob)))
    second.kill9()
    ann.server = first  # as a load balancer would do
    await publisher.publish(ROOM, 20)
    await watcher.wait_for_members("ann", "watcher")
    await asyncio.gather(*(client.wait_for_event(25) for client in (watcher, ann)))
    assert watcher.leaves == ["bob"]
    assert ann.seqs == watcher.seqs == list(range(1, 26))
    assert (ann.resets, watcher.resets) == (0, 0)
    publisher.close()
    second.start()
    await watcher.wait_for_members("ann", "bob", "watcher")
    await bob.wait_for_event(25)
    assert bob.seqs == list(range(1, 26))


async def test_a_node_that_was_suspended_and_expired_comes_back_with_its_members(
    site: Site,
) -> None:
    first, second = site.servers
    watcher, ann = await site.connect("watcher", first), await site.connect("ann", second)
    await watcher.wait_for_members("ann", "watcher")
    assert second.process is not None
    second.process.send_signal(signal.SIGSTOP)
    try:
        await watcher.wait_for_members("watcher")
    finally:
        second.process.send_signal(signal.SIGCONT)
    await watcher.wait_for_members("ann", "watcher")
    await ann.wait_for_members("ann", "watcher")
    assert watcher.leaves == ["ann"]


async def test_a_node_whose_clock_is_an_hour_off_changes_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        right, wrong = stack.enter_context(engine.servers(tmp_path, 2, application=APPLICATION))
        wrong.stop()
        wrong.env["REALTIME_TEST_CLOCK_OFFSET"] = "3600"
        wrong.start()
        site = Site([right, wrong], stack)
        watcher, ann = await site.connect("watcher", right), await site.connect("ann", wrong)
        for server, start in ((right, 0), (wrong, 5)):
            publisher = Publisher(server)
            stack.callback(publisher.close)
            await publisher.publish(ROOM, 5, "tick", start)
        for client in (watcher, ann):
            await client.wait_for_event(10)
            await client.wait_for_members("ann", "watcher")
        ages = (
            "from realtime.stores import get_store; print([n.age > 3 for n in get_store().nodes()])"
        )
        assert "[False, False]" in await asyncio.to_thread(wrong.run, ages)
        assert watcher.leaves == ann.leaves == []
        await ann.leave()
        await watcher.wait_for_members("watcher")
