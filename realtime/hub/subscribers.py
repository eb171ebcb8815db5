"""The live subscribers of a topic, and how a subscription catches up until it is live.

A subscription is either *live*, and the topic pushes to it, or it *catches up*, and a task of its
own pushes to it from the log, as fast as the client reads.
It goes live in the turn of the loop in which its position equals the topic's, so no event can be
missed in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from realtime.hub.recent import EventFrame, Pieces
from realtime.protocol.encoders import Frame, bundle
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.writers.asgi import AsgiWriter, Piece, SlowReader
from realtime.writers.flusher import Flusher, Recipient

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.hub.topic import LiveTopic

__all__ = ["BaseSubscription", "Subscriber", "Subscribers"]

logger = logging.getLogger("realtime")


class Subscriber(Recipient, Protocol):
    """What a topic needs of a live subscription."""

    @property
    def writer(self) -> AsgiWriter:
        """The writer of its client."""

    def fall_behind(self, position: Cursor | None) -> None:
        """Catch up from the log after this cursor; the subscription is no longer live."""


class Subscribers:
    """The live subscribers of a topic, and the batch of frames for them; used on the hub's loop.

    Attributes:
        live: the live subscribers, with the writer of each.
        last_push: when a batch was last pushed to them, on the loop's clock.
    """

    def __init__(self, flusher: Flusher) -> None:
        self.live: dict[Subscriber, AsgiWriter] = {}
        self.last_push = 0.0
        self._flusher = flusher
        self._batch: list[Frame] = []  # the frames of this turn
        self._before: Cursor | None = None  # the topic's position before the batch

    def push(self, frame: Frame, before: Cursor | None) -> None:
        """Push a frame to all live subscribers; the frames of one loop turn are sent as one batch.

        Args:
            frame: the frame to push.
            before: the topic's position before this frame.
        """
        if not self._batch:
            self._before = before
            self._flusher.call_before_flush(self.push_batch)
        self._batch.append(frame)

    def push_batch(self) -> None:
        """Push the frames of this turn now."""
        if not self._batch:
            return
        frames, self._batch = self._batch, []
        self.last_push = self._flusher.time()
        on_full = partial(self._on_full, frames, self._before)
        self._flusher.write_all(bundle(frames), self.live, on_full)

    def _on_full(
        self, frames: Sequence[Frame], before: Cursor | None, subscriber: Subscriber, accepted: int
    ) -> None:
        """Let a subscriber that accepted only some frames of a batch catch up from the log."""
        # Ephemeral events are not in the log; those that were not accepted are lost.
        if any(isinstance(frame, EventFrame) for frame in frames[accepted:]):
            cursors = [frame.cursor for frame in frames[:accepted] if isinstance(frame, EventFrame)]
            self._fall_behind(cursors[-1] if cursors else before, subscriber)

    def _fall_behind(self, position: Cursor | None, subscriber: Subscriber, _: int = 0) -> None:
        del self.live[subscriber]
        subscriber.fall_behind(position)

    def push_reset(self, piece: Piece, before: Cursor | None) -> None:
        """Push a reset or a member list to the live subscribers, after a gap in the log.

        Args:
            piece: a reset, or the member list.
            before: the topic's position before the gap. A subscriber whose buffer is full catches
                up from there; with None, it receives the member list.
        """
        self._flusher.write_all(piece, self.live, partial(self._fall_behind, before))

    def queue_pending(self) -> None:
        """Flush pending frames into every live subscriber's queue."""
        self.push_batch()
        self._flusher.end_pass()

    def add_live(self, subscriber: Subscriber) -> None:
        """Add a live subscriber, whose position equals the topic's."""
        self.push_batch()  # the subscriber already has the events of this batch
        self.live[subscriber] = subscriber.writer

    def remove_live(self, subscriber: Subscriber) -> None:
        """Remove a subscriber from the live ones, if it is one of them."""
        if subscriber in self.live:
            self._flusher.end_pass()
            self.live.pop(subscriber, None)


class BaseSubscription:
    """A client's subscription to one topic's log: live, or catching up.

    Attributes:
        connection: the client's connection.
        writer: the connection's writer.
        topic: the live topic that the client follows.
        position: the cursor up to which the client caught up; not updated while live.
        ended: whether it has been unsubscribed.
    """

    __slots__ = ("_task", "connection", "ended", "position", "topic", "writer")

    def __init__(self, connection: Connection, topic: LiveTopic) -> None:
        """Take over the follower that ``Hub.follow()`` added; ``end()`` releases it."""
        self.connection = connection
        self.writer = connection.writer
        self.topic = topic
        self.position: Cursor | None = None
        self.ended = False
        self._task: asyncio.Task[None] | None = None

    @property
    def catching_up(self) -> asyncio.Task[None] | None:
        """The task that catches up from the log; None while live."""
        return None if self._task is None or self._task.done() else self._task

    def push(self, frame: Frame) -> bool:
        """Queue a live frame; return False if the connection's buffer is full."""
        return self.connection.push(frame)

    def fall_behind(self, position: Cursor | None) -> None:
        """Catch up from the log after this cursor, as fast as the client reads."""
        self.position = position
        self._advance()

    def end(self) -> None:
        """Unsubscribe; frames that are already written still arrive. Idempotent."""
        if self.ended:
            return
        self.ended = True
        if self._task is not None:
            self._task.cancel()
        self.topic.remove_live(self)
        self.topic.hub.release(self.topic)

    def _advance(self, pieces: Pieces = ()) -> None:
        """Go live if nothing is missing, else catch up, first with ``pieces`` if there are any."""
        if self.ended:
            return
        if not pieces and self._is_current():
            self.topic.add_live(self)
        else:
            self._task = self.topic.hub.loop.create_task(self._run(pieces))

    async def _run(self, pieces: Pieces) -> None:
        try:
            await self._catch_up(pieces)
        except SlowReader:
            self.connection.close(CloseCode.SLOW)
        except Exception:
            logger.exception("the replay of %s failed", self.topic.name)
            self.connection.close(CloseCode.FAILED)

    async def _catch_up(self, pieces: Pieces) -> None:
        """Push the missing events until the position equals the topic's, then go live at once."""
        while not self.writer.closed:
            for piece, cursor in pieces:
                await self.connection.push_paced(piece)
                self.position = cursor
            # With a full buffer, the client would fall behind again at the next event.
            await self.connection.drain()
            if self._is_current():
                self.topic.add_live(self)
                return
            pieces = await self._missing()

    def _is_current(self) -> bool:
        """Tell whether the client misses nothing."""
        return self.topic.is_at(self.position)

    async def _missing(self) -> Pieces:
        """Return the frames that the client is missing after its position."""
        raise NotImplementedError("of a subclass")
