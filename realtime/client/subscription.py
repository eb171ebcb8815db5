"""The result of ``client.subscribe()``: an asynchronous iterator over the events of one topic."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

from realtime.client.topic import Members, SharedSubscription
from realtime.exceptions import EventsLost
from realtime.protocol.events import Cursor, Event, Member

__all__ = ["OnMembers", "OnReset", "Subscription"]

OnReset: TypeAlias = Callable[[EventsLost], Any]
OnMembers: TypeAlias = Callable[[list[Member]], Any]


class Subscription:
    """The events of a topic: in order, without gaps or duplicates, even across reconnects.

    Iterate over it with ``async for``, in one task.

    ``async with client.subscribe(…) as events`` waits until the server has confirmed the
    subscription, and unsubscribes at the end.
    Without ``async with``, the client unsubscribes when this object is garbage-collected, for
    example after a ``break`` out of ``async for event in client.subscribe(…)``.
    """

    def __init__(
        self, shared: SharedSubscription, on_reset: OnReset | None, on_members: OnMembers | None
    ) -> None:
        self._shared = shared
        self._on_reset = on_reset
        self._on_members = on_members
        loop = asyncio.get_running_loop()
        weakref.finalize(self, _abandon, shared, loop).atexit = False

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._shared.topic

    @property
    def cursor(self) -> Cursor | None:
        """The cursor of the last event that the iteration returned; None until subscribed.

        Save it, and pass it as ``since`` to resume in a later run of the program.
        """
        return self._shared.cursor

    @property
    def members(self) -> list[Member] | None:
        """The current members of the topic, in the order in which they joined.

        None until the list arrives, shortly after the subscription is confirmed. Always None if
        the topic does not track presence.
        """
        return self._shared.members.list

    @property
    def member_count(self) -> int | None:
        """The number of members of the topic; None until it arrives.

        If the topic has more members than the server lists, ``members`` is empty, and this number
        changes at most once a second.
        """
        return self._shared.members.count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event and return it; a timeout around it loses no event.

        Raises:
            EventsLost: events were missed that are no longer in the log, and there is no
                ``on_reset``. Fetch the state again, then continue the iteration.
            CommandRefused: the topic does not exist or the user is not allowed to follow it; or
                there is an ``on_members``, but the topic does not track presence.
            ConnectionEnded: the server told the client not to reconnect.
            StopAsyncIteration: the client or this subscription was closed.
        """
        while True:
            item = await self._shared.next()
            if item is None:
                raise StopAsyncIteration
            if isinstance(item, Event):
                return item
            if isinstance(item, EventsLost) and self._on_reset is None:
                raise item
            try:
                await self._call_back(item)
            except BaseException:
                self._shared.put_back(item)  # the next iteration calls the function again
                raise

    async def _call_back(self, item: EventsLost | Members) -> None:
        result = None
        if isinstance(item, EventsLost):
            result = self._on_reset(item) if self._on_reset is not None else None
        elif self._on_members is not None:
            result = self._on_members(item.list or [])
        if inspect.isawaitable(result):
            await result

    async def aclose(self) -> None:
        """Unsubscribe; the iteration ends, and unread events are discarded."""
        self._shared.unsubscribe()

    async def __aenter__(self) -> Self:
        try:
            await self._shared.wait_subscribed()
        except BaseException:
            self._shared.unsubscribe()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _abandon(shared: SharedSubscription, loop: asyncio.AbstractEventLoop) -> None:
    """Unsubscribe after garbage collection, which can happen in any thread."""
    shared.abandoned = True
    if not loop.is_closed():
        loop.call_soon_threadsafe(shared.unsubscribe)
