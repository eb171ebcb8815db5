"""What ``client.subscribe()`` answers with: the events of one topic, to be iterated over."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

from realtime.client.following import Following
from realtime.events import Cursor, Event
from realtime.exceptions import EventsLost

__all__ = ["OnReset", "Subscription"]

OnReset: TypeAlias = Callable[[EventsLost], Any]


class Subscription:
    """The events of a topic: in order, each once, with no hole, across reconnects.

    Iterate over it with ``async for``, in one task.
    As ``async with client.subscribe(…) as events`` it waits until the server follows the topic,
    and leaves the topic at the end; without, the topic is left when nothing refers to this any
    more, as after a ``break`` out of ``async for event in client.subscribe(…)``.
    """

    def __init__(self, following: Following, on_reset: OnReset | None) -> None:
        self._following = following
        self._on_reset = on_reset
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; a timeout around it loses none.

        Raises:
            EventsLost: events are missing which the log does not keep, and there is no
                ``on_reset``; fetch the state anew, and iterate on.
            CommandRefused: the topic does not exist or may not be followed.
            ConnectionEnded: the server said not to come back.
            StopAsyncIteration: the client or this subscription was closed.
        """
        while True:
            item = await self._following.next()
            if item is None:
                raise StopAsyncIteration
            if isinstance(item, Event):
                return item
            if self._on_reset is None:
                raise item
            try:
                outcome = self._on_reset(item)
                if inspect.isawaitable(outcome):
                    await outcome
            except BaseException:
                self._following.put_back(item)  # whoever iterates on is told again
                raise

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
