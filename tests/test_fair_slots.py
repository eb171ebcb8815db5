"""Slots that waiting callers take in turn."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime import fair_slots
from realtime.exceptions import ProtocolError
from realtime.fair_slots import FairSlots

PATIENCE = 30.0


class Crowd:
    """Callers that wait for slots, and the order in which they are granted."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.granted: list[str] = []
        self.releases: list[Callable[[], None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, callers: str) -> None:
        for caller in callers:
            self.tasks.append(asyncio.create_task(self._ask(caller)))
            await asyncio.sleep(0)

    async def _ask(self, caller: str) -> None:
        release = await self.slots.acquire(caller)
        self.granted.append(caller)
        self.releases.append(release)

    async def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.releases.pop(0)()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_callers_take_turns_whatever_their_number_of_requests() -> None:
    crowd = Crowd(FairSlots(1, 1, PATIENCE))
    await crowd.ask("aaaabbc")
    await crowd.release(6)
    assert "".join(crowd.granted) == "abcabaa"


async def test_a_caller_holds_at_most_its_share() -> None:
    crowd = Crowd(FairSlots(4, 2, PATIENCE))
    await crowd.ask("aaaab")
    assert "".join(crowd.granted) == "aab"
    await crowd.release()
    assert "".join(crowd.granted) == "aaba"


async def test_a_request_that_waits_too_long_is_busy_and_takes_no_slot() -> None:
    slots = FairSlots(1, 1, 0.0)
    release = await slots.acquire("a")
    for caller in ("a", "b"):
        with pytest.raises(ProtocolError) as caught:
            await slots.acquire(caller)
        assert caught.value.code == "busy"
    release()
    (await slots.acquire("b"))()


async def test_a_caller_that_waits_too_often_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fair_slots, "MAX_WAITING", 3)
    crowd = Crowd(FairSlots(1, 1, PATIENCE))
    await crowd.ask("aaaa")
    with pytest.raises(ProtocolError, match="busy"):
        await crowd.slots.acquire("a")
    await crowd.ask("b")
    await crowd.release(4)
    assert "".join(crowd.granted) == "abaaa"


@given(st.lists(st.tuples(st.sampled_from(["ask", "release", "cancel"]), st.sampled_from("abc"))))
def test_slots_are_never_lost_and_never_shared(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        crowd = Crowd(FairSlots(3, 2, PATIENCE))
        for step, caller in steps:
            if step == "ask":
                await crowd.ask(caller)
            elif step == "release" and crowd.releases:
                crowd.releases.pop(0)()  # and at once the next step, before tasks run
            elif step == "cancel":
                for task in crowd.tasks[-2:]:
                    task.cancel()
            assert len(crowd.releases) <= 3
        while not all(task.done() for task in crowd.tasks):
            await asyncio.sleep(0)
            if crowd.releases:
                crowd.releases.pop(0)()
        for release in crowd.releases:
            release()
        for caller in "aabbc"[:3]:
            async with asyncio.timeout(1):
                await crowd.slots.acquire(caller)

    asyncio.run(run())
