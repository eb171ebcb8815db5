"""A topic that this process follows: its position, its live subscribers, joining and repair.

The position is the cursor of the last event that was delivered to the live subscribers.
Events arrive in wake-ups, in any order and any number of times, and in reads of the log.
Either way, only the event right after the position is delivered.
A gap is filled from the log by a repair, one at a time; a gap that the log cannot fill is a reset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from realtime.broadcast import Wakeup
from realtime.exceptions import CursorExpired, StoreError
from realtime.hub.recent import EventFrame, Frames, RecentFrames
from realtime.hub.subscribers import Subscribers
from realtime.outage import Outage
from realtime.protocol.encoders import Frame, Kind, event_frame
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import Reset, reset
from realtime.stores.base import is_beginning

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["LiveTopic", "reset_reason"]

logger = logging.getLogger("realtime")

EARLY_SECONDS = 0.010  # that an early event waits for the ones before it, likely on their way
EARLY_EVENTS = 1_000  # held at most; a repair reads further ones from the log
EARLY_BYTES = 1024 * 1024  # held at most
IN_FLIGHT_SECONDS = 0.050  # that a head check waits for a wake-up before it counts as lost
RETRY_SECONDS = (0.1, 5.0)  # between reads of a store that fails: first, and at most


def reset_reason(error: CursorExpired) -> Reset:
    """Return the protocol's reason for a log that cannot be continued from a cursor."""
    same_epoch = error.head.epoch == error.cursor.epoch and not error.contradicts
    return Reset.TRIMMED if same_epoch else Reset.RESTARTED


class LiveTopic(Subscribers):
    """A topic of this process's hub; used on the hub's loop only.

    Attributes:
        hub: the hub that follows the topic.
        name: of the topic, or of an internal log.
        joined: done once the topic has a position; fails if the head could not be read.
        closed: the hub follows it no longer.
        followers: how many subscriptions hold it; written by the hub, as are the attributes below.
        in_group: the hub's channel is in the topic's group.
        is_being_added: a ``group_add()`` is in progress.
        group_added: when the group was last joined, on the loop's clock.
        next_check: when the head is to be checked next, on the loop's clock.
        linger: the timer that drops the topic, while it has no followers.
    """

    def __init__(self, hub: Hub, name: str, max_events: int) -> None:
        super().__init__(hub.flusher)
        self.hub = hub
        self.name = name
        self.joined: asyncio.Future[None] = hub.loop.create_future()
        self.closed = False
        self.followers = 0
        self.in_group = False
        self.is_being_added = False
        self.group_added = 0.0
        self.next_check = 0.0
        self.linger: asyncio.TimerHandle | None = None
        self._max_events = max_events  # that the log keeps, and the ring at most
        self._position: Cursor | None = None  # None until joined
        self._ring: RecentFrames | None = None  # None until joined
        # Events ahead of the position by number, each with its predecessor's tag.
        self._early: dict[int, tuple[EventFrame, int | None]] = {}
        self._early_bytes = 0
        self._head_seq = 0  # the highest number that head checks have seen since the last repair
        self._repair_timer: asyncio.TimerHandle | None = None
        self._repair_task: asyncio.Task[None] | None = None
        self._repaired: asyncio.Future[None] | None = None  # done when the current repair ends
        self._repair_again = False  # the current repair may have read the log too early
        self._reads: dict[Cursor, asyncio.Task[Frames]] = {}  # in progress, by where they begin

    @property
    def position(self) -> Cursor:
        """The cursor of the last event delivered; available once ``joined`` is done."""
        assert self._position is not None
        return self._position

    async def where_to_start(self, head: Cursor) -> Cursor:
        """Return the position to start at: the head that was read after the group was joined."""
        return head

    def make_frame(self, event: Event, cursor: Cursor) -> EventFrame:
        """Encode a stored event, once for all followers."""
        return EventFrame(event, cursor)

    def start(self, head: Cursor) -> None:
        """Start at a head that was read after the group was joined."""
        self._restart(head)
        if not self.joined.done():
            self.joined.set_result(None)
        self._deliver_early()

    def fail(self, error: Exception) -> None:
        """Fail the join for everyone who waits for it."""
        if not self.joined.done():
            self.joined.set_exception(error)
            self.joined.exception()  # retrieved, in case no waiter is left

    def close(self) -> None:
        """Stop timers and tasks; no new ones start."""
        self.closed = True
        for handle in (self._repair_timer, self.linger):
            if handle is not None:
                handle.cancel()
        for task in (self._repair_task, *self._reads.values()):
            if task is not None:
                task.cancel()
        self.fail(StoreError("the server is shutting down"))

    # Wake-ups

    def receive(self, wakeup: Wakeup) -> None:
        """Deliver the events that come next, hold early ones, repair on a contradiction."""
        previous = wakeup.previous
        for event in wakeup.events:
            if event.cursor is None:
                self.push(Frame(event_frame(event), kind=Kind.EVENT), self._position)
                continue
            self._offer(event, event.cursor, previous)
            previous = event.cursor.tag

    def _offer(self, event: Event, cursor: Cursor, previous: int | None) -> None:
        position = self._position
        if position is None:
            self._hold(event, cursor, previous)  # joining: the head decides which events are new
        elif cursor.epoch != position.epoch:
            self.force_repair()  # a new epoch is believed from the store, never from a wake-up
        elif cursor.seq <= position.seq:
            if self._contradicts(cursor):
                self.force_repair()
        elif cursor.seq > position.seq + 1:
            self._hold(event, cursor, previous)
            self._repair_in(EARLY_SECONDS)
        elif previous != position.tag and not self._was_beginning(previous):
            self.force_repair()  # the number is the next one, but not the tag: the log was rewound
        else:
            self._deliver(self.make_frame(event, cursor))
            self._deliver_early()

    def _was_beginning(self, previous: int | None) -> bool:
        """Tell whether the position and an event's predecessor are before the first event.

        The tag of that cursor changes with time (``beginning()``).
        """
        position = self.position
        return (
            position.seq == 0
            and previous is not None
            and is_beginning(replace(position, tag=previous), self.name)
        )

    def is_at(self, cursor: Cursor | None) -> bool:
        """Tell whether a cursor from which the log can be read is the position."""
        position = self.position
        return cursor == position or (
            cursor is not None
            and cursor.seq == position.seq == 0
            and cursor.epoch == position.epoch
        )

    def _contradicts(self, cursor: Cursor) -> bool:
        position = self.position
        if cursor.seq == position.seq:
            return cursor.tag != position.tag
        known = None if self._ring is None else self._ring.tag_at(cursor.seq)
        return known is not None and known != cursor.tag

    def _hold(self, event: Event, cursor: Cursor, previous: int | None) -> None:
        if cursor.seq in self._early or len(self._early) >= EARLY_EVENTS:
            return
        frame = self.make_frame(event, cursor)
        if self._early_bytes + frame.size <= EARLY_BYTES:
            self._early[cursor.seq] = (frame, previous)
            self._early_bytes += frame.size

    def _deliver_early(self) -> None:
        """Deliver the held events that follow the position, and drop those behind it."""
        while (held := self._early.pop(self.position.seq + 1, None)) is not None:
            frame, previous = held
            self._early_bytes -= frame.size
            if previous != self.position.tag and not self._was_beginning(previous):
                self.force_repair()
                break
            self._deliver(frame)
        self._prune_early()
        if self._early:
            self._repair_in(EARLY_SECONDS)

    def _prune_early(self, outdated: Collection[int] = ()) -> None:
        """Drop the held events that cannot follow the position, and those with these numbers."""
        if not self._early:
            return
        position = self.position
        self._early = {
            seq: held
            for seq, held in self._early.items()
            if seq > position.seq and held[0].cursor.epoch == position.epoch and seq not in outdated
        }
        self._early_bytes = sum(frame.size for frame, _ in self._early.values())

    # Delivery

    def _deliver(self, frame: EventFrame) -> None:
        self.push(frame, self._position)
        self._position = frame.cursor
        if self._ring is not None:
            self._ring.add(frame)

    def _restart(self, head: Cursor) -> None:
        self._position = head
        self._ring = RecentFrames(head, self._max_events)
        self._head_seq = 0
        self._prune_early()

    async def _reset(self, head: Cursor, reason: Reset) -> None:
        self.push_batch()
        before = self.position
        self._restart(head)
        frame = Frame(reset(self.name, head, reason), (self.name, head), Kind.RESET)
        # A client whose buffer is full finds the same gap when it catches up, and is reset then.
        self.push_reset(frame, before)
        self._deliver_early()

    # Reading

    def recent(self, after: Cursor) -> Frames | None:
        """Return the frames after a cursor, or None if the ring does not reach back to it."""
        if self._ring is None:
            return None
        start = self._ring.start
        if after.seq == start.seq == 0 and after.epoch == start.epoch:
            if not is_beginning(after, self.name):
                return None
            after = start
        return self._ring.after(after)

    async def read(self, after: Cursor) -> Frames:
        """Read the log after a cursor; concurrent calls with the same cursor share a read.

        Raises:
            CursorExpired: the log cannot be continued from this cursor; reset the client. The head
                is from a read that began after this call.
            StoreError: the log cannot be read now; try again.
        """
        task = self._reads.get(after)
        if task is not None:
            try:
                return await asyncio.shield(task)
            except CursorExpired:
                # The log can have been replaced since that read began, so its head is outdated.
                task = self._reads.get(after)
        return await asyncio.shield(task or self._start_read(after))

    def _start_read(self, after: Cursor) -> asyncio.Task[Frames]:
        if self.closed:
            raise StoreError(f"{self.name} is no longer followed")
        task = self._reads[after] = self.hub.loop.create_task(self._read(after))
        task.add_done_callback(lambda done: self._forget_read(after, done))
        return task

    def _forget_read(self, after: Cursor, task: asyncio.Task[Frames]) -> None:
        self._reads.pop(after, None)
        if not task.cancelled():
            task.exception()  # retrieved, in case no caller is left

    async def _read(self, after: Cursor) -> Frames:
        page = await self.hub.store.aread(self.name, after)
        frames = [self.make_frame(e, e.cursor) for e in page.events if e.cursor]
        self._deliver_read(after, frames)
        return Frames(frames, page.head)

    def _deliver_read(self, after: Cursor, frames: Sequence[EventFrame]) -> None:
        """Deliver what a read found after the position, if it is from the same log."""
        position = self.position
        cursors = [after, *(frame.cursor for frame in frames)]
        rewound = any(c.seq == position.seq > 0 and c.tag != position.tag for c in cursors)
        if after.epoch != position.epoch or rewound:
            self.force_repair()
            return
        for frame in frames:
            if frame.cursor.seq == self.position.seq + 1:
                self._deliver(frame)
        self._deliver_early()

    # Repair

    def check(self, head: Cursor, known: Cursor) -> bool:
        """Compare the head with the position, and repair if they disagree.

        An event after the position may be in a wake-up that is still on its way, which gets
        ``IN_FLIGHT_SECONDS`` to arrive.

        Args:
            head: the log's head.
            known: the position before the head was read.

        Returns:
            Whether they disagree.
        """
        position = self.position
        if self.closed or position.epoch != known.epoch:
            return False  # reset meanwhile; the next check compares again
        if head.epoch != known.epoch or head.seq < known.seq:
            self.force_repair()
        elif head.seq > position.seq:
            self._head_seq = max(self._head_seq, head.seq)
            self._repair_in(IN_FLIGHT_SECONDS)
        elif head.seq == position.seq == 0:
            if self._ring is not None:
                # So that new clients get a cursor that is valid for long; see beginning().
                self._position = self._ring.start = head
            return False
        elif self._contradicts(head):
            self.force_repair()
        else:
            return False
        return True

    def force_repair(self) -> None:
        """Repair at once: what arrived contradicts what was delivered."""
        # The current repair may have read the log before the change.
        self._repair_again = True
        self.repair()

    def _repair_in(self, seconds: float) -> None:
        if self._repaired is not None or self.closed:
            return  # a repair checks what is left when it ends
        loop = self.hub.loop
        if self._repair_timer is not None:
            if self._repair_timer.when() <= loop.time() + seconds:
                return
            self._repair_timer.cancel()
        self._repair_timer = loop.call_later(seconds, self._repair_if_needed)

    def _repair_if_needed(self) -> None:
        self._repair_timer = None
        if self._is_behind:
            self.repair()

    @property
    def _is_behind(self) -> bool:
        """Whether the log is known to have events after the position."""
        return bool(self._early) or self.position.seq < self._head_seq

    def repair(self) -> None:
        """Read from the position to the head, and deliver or reset; one repair at a time."""
        if self._repaired is None and not self.closed:
            self._repaired = self.hub.loop.create_future()
            self._start_repair()

    def _start_repair(self) -> None:
        self._repair_task = self.hub.loop.create_task(self._run_repair())
        # A callback, since an eager task may end before the assignment above.
        self._repair_task.add_done_callback(self._repair_done)

    def _repair_done(self, task: asyncio.Task[None]) -> None:
        if self._repair_again and not self.closed:
            self._start_repair()
            return
        repaired, self._repaired, self._repair_task = self._repaired, None, None
        assert repaired is not None
        if task.cancelled():
            repaired.cancel()
        else:
            repaired.set_result(None)
        if self._is_behind:
            self._repair_in(EARLY_SECONDS)

    async def reconcile(self, head: Cursor) -> None:
        """Repair until the position agrees with a head that a subscription read from the store.

        Otherwise the subscription could go live before the hub notices that the log has changed,
        and then receive a second reset.
        """
        if self.is_at(head) or self.recent(head) is not None:
            return  # the position is at this head or after it
        self.force_repair()
        if self._repaired is not None:
            await asyncio.shield(self._repaired)

    async def _run_repair(self) -> None:
        outage = Outage(f"{self.name} waits for its store: %s", backoff=RETRY_SECONDS)
        while True:
            try:
                self._repair_again, self._head_seq = False, 0
                held = tuple(self._early)
                await self._repair_once()
                # An event is in the log before its wake-up goes out. So an event that was held
                # before a complete read, and is still early after it, is from a log that no
                # longer exists.
                self._prune_early(held)
                if not self._repair_again:
                    return
            except StoreError as error:
                await asyncio.sleep(outage.failed(error))
            except Exception:
                logger.exception("the repair of %s failed", self.name)
                await asyncio.sleep(RETRY_SECONDS[1])

    async def _repair_once(self) -> None:
        while True:
            start = self.position
            try:
                page = await self._read(start)
            except CursorExpired as error:
                if self.position != start:
                    continue  # a wake-up moved the position meanwhile: read from there
                if error.contradicts:
                    head = await self.hub.store.arenew(self.name, start.epoch)
                    await self._reset(head, Reset.RESTARTED)
                else:
                    await self._reset(error.head, reset_reason(error))
                return
            if not page.frames or page.head.seq <= self.position.seq:
                return
