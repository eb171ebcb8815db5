"""A topic that this process follows: its position, its live subscriptions, joining and repair.

The position is the cursor of the last event that the live subscriptions were given.
Events come from wake-ups, in whatever order and however often the layer delivers them, and from
reads of the log; of both only the event that is next to the position is delivered.
What cannot be continued is read from the log by one repair at a time; what the log cannot continue
either is a reset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from realtime.broadcast import Wakeup
from realtime.exceptions import CursorExpired, StoreError
from realtime.hub.recent import EventFrame, Frames, RecentFrames
from realtime.hub.subscribers import Subscribers
from realtime.protocol.encoders import Frame, Kind, event_frame
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import Reset, reset

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["LiveTopic", "reset_reason"]

logger = logging.getLogger("realtime")

EARLY_SECONDS = 0.010  # that an event waits for those before it, which are likely on their way
EARLY_EVENTS = 1_000  # that wait; beyond that the repair reads them from the log
EARLY_BYTES = 1024 * 1024  # that they have together
IN_FLIGHT_SECONDS = 0.050  # that a head check leaves to a wake-up before it counts as lost
RETRY_SECONDS = (0.1, 5.0)  # between reads of a store that fails: first, and at most


def reset_reason(error: CursorExpired) -> Reset:
    """Say in the protocol's words why a log cannot be read on."""
    same_life = error.head.epoch == error.cursor.epoch and not error.contradicts
    return Reset.TRIMMED if same_life else Reset.RESTARTED


class LiveTopic(Subscribers):
    """A topic of this process's hub; used on the hub's loop only."""

    def __init__(self, hub: Hub, name: str, max_events: int) -> None:
        super().__init__(hub.flusher)
        self.hub = hub
        self.name = name
        self.followers = 0
        self.joined: asyncio.Future[None] = hub.loop.create_future()
        self.in_group = False
        self.is_being_added = False
        self.group_added = 0.0
        self.next_check = 0.0
        self.linger: asyncio.TimerHandle | None = None
        self.closed = False
        self._max_events = max_events
        self._position: Cursor | None = None
        self._ring: RecentFrames | None = None
        self._early: dict[int, tuple[EventFrame, int | None]] = {}
        self._early_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = 0  # a seq that the log has, as a head check saw
        self._repair: asyncio.Task[None] | None = None
        self._doubted = False  # something arrived that a repair under way may not have seen
        self._reads: dict[Cursor, asyncio.Task[Frames]] = {}

    @property
    def position(self) -> Cursor:
        """The cursor of the last event delivered; there is one once ``joined`` is done."""
        assert self._position is not None
        return self._position

    async def where_to_start(self, head: Cursor) -> Cursor:
        """Return the place at which to begin, as the head was when the group was joined."""
        return head

    def make_frame(self, event: Event, cursor: Cursor) -> EventFrame:
        """Encode a stored event, once for all who follow."""
        return EventFrame(event, cursor)

    def start(self, head: Cursor) -> None:
        """Begin at a head that was read after the group was joined."""
        self._restart(head)
        if not self.joined.done():
            self.joined.set_result(None)
        self._deliver_early()

    def fail(self, error: Exception) -> None:
        """Tell those who wait for the join that it failed."""
        if not self.joined.done():
            self.joined.set_exception(error)
            self.joined.exception()  # retrieved: there may be nobody left who waits

    def close(self) -> None:
        """Let go of timers and tasks; nothing begins any more."""
        self.closed = True
        for handle in (self._timer, self.linger):
            if handle is not None:
                handle.cancel()
        for task in (self._repair, *self._reads.values()):
            if task is not None:
                task.cancel()
        self.fail(StoreError("the server shuts down"))

    # Wake-ups

    def receive(self, wakeup: Wakeup) -> None:
        """Take a wake-up: deliver what is next, hold what is early, doubt what disagrees."""
        previous = wakeup.previous
        for event in wakeup.events:
            if event.cursor is None:
                self.gather(Frame(event_frame(event), kind=Kind.EVENT), self._position)
                continue
            self._offer(event, event.cursor, previous)
            previous = event.cursor.tag

    def _offer(self, event: Event, cursor: Cursor, previous: int | None) -> None:
        position = self._position
        if position is None:
            self._hold(event, cursor, previous)  # joining: the head will tell what is new
        elif cursor.epoch != position.epoch:
            self.suspect()  # a new epoch is believed from the store, never from a wake-up
        elif cursor.seq <= position.seq:
            if self._contradicts(cursor):
                self.suspect()
        elif cursor.seq > position.seq + 1:
            self._hold(event, cursor, previous)
            self._repair_in(EARLY_SECONDS)
        elif previous != position.tag:
            self.suspect()  # the number continues, the log does not: it was rewound
        else:
            self._deliver(self.make_frame(event, cursor))
            self._deliver_early()

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
        """Deliver the held events that continue the position; forget those that are behind it."""
        while (held := self._early.pop(self.position.seq + 1, None)) is not None:
            frame, previous = held
            self._early_bytes -= frame.size
            if previous != self.position.tag:
                self.suspect()
                break
            self._deliver(frame)
        self._prune_early()
        if self._early:
            self._repair_in(EARLY_SECONDS)

    def _prune_early(self, unknown: Collection[int] = ()) -> None:
        """Forget the held events that cannot follow the position, and those named."""
        if not self._early:
            return
        position = self.position
        self._early = {
            seq: held
            for seq, held in self._early.items()
            if seq > position.seq and held[0].cursor.epoch == position.epoch and seq not in unknown
        }
        self._early_bytes = sum(frame.size for frame, _ in self._early.values())

    # Delivery

    def _deliver(self, frame: EventFrame) -> None:
        self.gather(frame, self._position)
        self._position = frame.cursor
        if self._ring is not None:
            self._ring.add(frame)

    def _restart(self, head: Cursor) -> None:
        self._position = head
        self._ring = RecentFrames(head, self._max_events)
        self._wanted = 0
        self._prune_early()

    async def _reset(self, head: Cursor, reason: Reset) -> None:
        self.spread()
        before = self.position
        self._restart(head)
        frame = Frame(reset(self.name, head, reason), (self.name, head), Kind.RESET)
        # One that is full meets the same hole when it catches up, and is told then.
        self.spread_over(frame, before)
        self._deliver_early()

    # Reading

    def recent(self, after: Cursor) -> Frames | None:
        """Return the frames after a cursor, or None if the ring does not reach back to it."""
        return None if self._ring is None else self._ring.after(after)

    async def read(self, after: Cursor) -> Frames:
        """Read the log after a cursor; those who ask for the same at the same time share a read.

        Raises:
            CursorExpired: the log cannot be read on from there.
            StoreError: it cannot be read now.
        """
        task = self._reads.get(after)
        if task is None:
            if self.closed:
                raise StoreError(f"{self.name} is followed no more")
            task = self._reads[after] = self.hub.loop.create_task(self._read(after))
            task.add_done_callback(lambda done: self._forget_read(after, done))
        return await asyncio.shield(task)

    def _forget_read(self, after: Cursor, task: asyncio.Task[Frames]) -> None:
        self._reads.pop(after, None)
        if not task.cancelled():
            task.exception()  # retrieved: those who waited may be gone

    async def _read(self, after: Cursor) -> Frames:
        page = await self.hub.store.aread(self.name, after)
        frames = [self.make_frame(e, e.cursor) for e in page.events if e.cursor]
        self._absorb(after, frames)
        return Frames(frames, page.head)

    def _absorb(self, after: Cursor, frames: Sequence[EventFrame]) -> None:
        """Deliver what a read found beyond the position, if it is from the position's log."""
        position = self.position
        cursors = [after, *(frame.cursor for frame in frames)]
        rewound = any(c.seq == position.seq and c.tag != position.tag for c in cursors)
        if after.epoch != position.epoch or rewound:
            self.suspect()
            return
        for frame in frames:
            if frame.cursor.seq == self.position.seq + 1:
                self._deliver(frame)
        self._deliver_early()

    # Doubt and repair

    def check(self, head: Cursor, known: Cursor) -> bool:
        """Compare a head with the position from before it was read; tell whether it found news.

        A head in front of the position may be a wake-up in flight, so that gets a moment more.
        """
        position = self.position
        if self.closed or position.epoch != known.epoch:
            return False  # reset meanwhile; the next check compares anew
        if head.epoch != known.epoch or head.seq < known.seq:
            self.suspect()
        elif head.seq > position.seq:
            self._wanted = max(self._wanted, head.seq)
            self._repair_in(IN_FLIGHT_SECONDS)
        elif self._contradicts(head):
            self.suspect()
        else:
            return False
        return True

    def suspect(self) -> None:
        """Read the log at once: what arrived does not agree with what was delivered."""
        # A repair under way may have read the log before the change was there.
        self._doubted = True
        self.repair()

    def _repair_in(self, seconds: float) -> None:
        if self._repair is not None or self.closed:
            return  # the repair looks at what is left when it ends
        loop = self.hub.loop
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._repair_if_stuck)

    def _repair_if_stuck(self) -> None:
        self._timer = None
        if self._early or self.position.seq < self._wanted:
            self.repair()

    def repair(self) -> None:
        """Read from the position to the head, and deliver or reset; one at a time."""
        if self._repair is None and not self.closed:
            self._repair = self.hub.loop.create_task(self._run_repair())

    async def settle(self, head: Cursor) -> None:
        """Bring the position to where it agrees with a head of the store's.

        For a subscription that saw the store disagree: going live before the hub has seen the same
        would bring the client a second reset.
        """
        if head == self.position or self.recent(head) is not None:
            return  # the position went on from there
        self.suspect()
        if self._repair is not None:
            await asyncio.shield(self._repair)

    async def _run_repair(self) -> None:
        delay = RETRY_SECONDS[0]
        try:
            while True:
                try:
                    self._doubted, self._wanted = False, 0
                    held = tuple(self._early)
                    await self._repair_once()
                    # An event is in the log before its wake-up goes out: what is still early after
                    # a whole read is from a log that is no more.
                    self._prune_early(held)
                    if not self._doubted:
                        return
                except StoreError as error:
                    if delay == RETRY_SECONDS[0]:
                        logger.warning("%s waits for its store: %s", self.name, error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_SECONDS[1])
                except Exception:
                    logger.exception("repair of %s failed", self.name)
                    await asyncio.sleep(RETRY_SECONDS[1])
        finally:
            self._repair = None
            if self._early or self.position.seq < self._wanted:
                self._repair_in(EARLY_SECONDS)

    async def _repair_once(self) -> None:
        while True:
            start = self.position
            try:
                page = await self._read(start)
            except CursorExpired as error:
                if self.position != start:
                    continue  # a wake-up carried it on meanwhile: ask from there
                if error.contradicts:
                    head = await self.hub.store.arenew(self.name, start.epoch)
                    await self._reset(head, Reset.RESTARTED)
                else:
                    await self._reset(error.head, reset_reason(error))
                return
            if not page.frames or page.head.seq <= self.position.seq:
                return
