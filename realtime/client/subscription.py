"""What ``client.subscribe()`` answers with: the events of one topic, to be iterated over."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

from realtime.client.topic import Following, Members
from realtime.exceptions import EventsLost
from realtime.protocol.events import Cursor, Event, Member

__all__ = ["OnMembers", "OnReset", "Subscription"]

OnReset: TypeAlias = Callable[[EventsLost], Any]
OnMembers: TypeAlias = Callable[[list[Member]], Any]


class Subscription:
    """The events of a topic: in order, each once, with no hole, across reconnects.

    Iterate over it with ``async for``, in one task.
    As ``async with client.subscribe(…) as events`` it waits until the server follows the topic,
    and leaves the topic at the end; without, the topic is left when nothing refers to this any
    more, as after a ``break`` out of ``async for event in client.subscribe(…)``.
    """

    def __init__(
        self, following: Following, on_reset: OnReset | None, on_members: OnMembers | None
    ) -> None:
        self._following = following
        self._on_reset = on_reset
        self._on_members = on_members
        loop = asyncio.get_running_loop()
        weakref.finalize(self, _abandon, following, loop).atexit = False

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._following.topic

    @property
    def cursor(self) -> Cursor | None:
        """The place after the last event that was handed out; a program that ends stores it.

        None until the server has said where the topic stands.
        """
        return self._following.cursor

    @property
    def members(self) -> list[Member] | None:
        """Who is on the topic, as the server told last, in the order in which they came.

        None until it did, which follows at once behind the subscription, and for ever if the topic
        keeps no presence.
        """
        return self._following.members.list

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; a timeout around it loses none.

        Raises:
            EventsLost: events are missing which the log does not keep, and there is no
                ``on_reset``; fetch the state anew, and iterate on.
            CommandRefused: the topic does not exist or may not be followed, or there is an
                ``on_members`` and the topic keeps no presence.
            ConnectionEnded: the server said not to come back.
            StopAsyncIteration: the client or this subscription was closed.
        """
        while True:
            item = await self._following.next()
            if item is None:
                raise StopAsyncIteration
            if isinstance(item, Event):
                return item
            if isinstance(item, EventsLost) and self._on_reset is None:
                raise item
            try:
                await self._tell(item)
            except BaseException:
                self._following.put_back(item)  # whoever iterates on is told again
                raise

    async def _tell(self, item: EventsLost | Members) -> None:
        outcome = None
        if isinstance(item, EventsLost):
            outcome = self._on_reset(item) if self._on_reset is not None else None
        elif self._on_members is not None:
            outcome = self._on_members(item.list or [])
        if inspect.isawaitable(outcome):
            await outcome

    async def aclose(self) -> None:
        """Leave the topic; what waits is dropped, and the iteration ends."""
        self._following.leave()

    async def __aenter__(self) -> Self:
        try:
            await self._following.begun()
        except BaseException:
            self._following.leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _abandon(following: Following, loop: asyncio.AbstractEventLoop) -> None:
    """Leave a topic whose subscription is gone; in whichever thread found that out."""
    following.abandoned = True
    if not loop.is_closed():
        loop.call_soon_threadsafe(following.leave)
