"""Let what waits for clients leave at the end of a turn of the loop, each client's in one write.

There are two ways, and which of them is taken costs and changes nothing but time:

- **Lines.** What is written waits in its writer's queue, and the writers stand in line.
  Whatever comes while a client waits leaves with the rest, so that the more there is to do, the
  less each event costs.
- **A sweep.** While one piece for many is all there is to do, it is written to one client after the
  other, past their queues.
  As soon as anything else comes to do, what is left of it goes into the queues.

What goes on, hop by hop: a topic *gathers* what comes in a turn, the flusher *spreads* it (by a
sweep, or into the queues), a writer *flushes* its queue; ``settle()`` ends a sweep.

Writing never holds the loop for longer than a slice, so that accepts, heartbeats and commands go
on; and what concerns few clients does not stand in line behind what concerns thousands.
Queueing is not sliced: it takes a twentieth of the time of writing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from realtime.protocol.encoders import Bundle, Frame, Wire
    from realtime.writers.asgi import AsgiWriter

__all__ = ["Flusher", "Receiver"]

logger = logging.getLogger("realtime")

SLICE_SECONDS = 0.005  # that a flush holds the loop; others wait so long at most
LOOK_EVERY = 16  # writes between looks at the clock, which are about 0.15 ms
MANY = 100  # receivers of one piece, from which they stand in the line of the many


class Receiver(Protocol):
    """Who gets what is spread."""

    def push(self, frame: Frame) -> bool:
        """Take a frame; False if the client's buffer is full."""


R = TypeVar("R", bound=Receiver)


@dataclass(slots=True)
class _Sweep:
    """A piece on its way to those who were live when it began, and how far it has come."""

    piece: Frame | Bundle
    receivers: list[Any]
    writers: list[AsgiWriter]
    left: Callable[[Any, int], None]
    done: int = 0


class Flusher:
    """The writers that have something to write; used on one loop only.

    Attributes:
        time: returns the loop's time.
        now: the loop's time when the last flush began.
        direct: writes that went past the server, to the socket; see ``writers/daphne.py``.
        buffered: those that were put behind what waits in the server's buffer already.
        portable: those that were sent through the server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.now = self.time()
        self.direct = 0
        self.buffered = 0
        self.portable = 0
        self._loop = loop
        self._few: deque[AsgiWriter] = deque()
        self._many: deque[AsgiWriter] = deque()
        self._gathering: list[Callable[[], None]] = []
        self._sweep: _Sweep | None = None
        self._may_sweep = False
        self._is_scheduled = False

    @property
    def writes(self) -> dict[str, int]:
        """How often each way was taken."""
        return {"direct": self.direct, "buffered": self.buffered, "portable": self.portable}

    def add(self, writer: AsgiWriter) -> None:
        """Flush a writer at the end of the turn; its queue was empty."""
        self._few.append(writer)
        self._schedule()

    def call_before(self, spread: Callable[[], None]) -> None:
        """Call a function before the next flush, to spread what was gathered until then."""
        self._gathering.append(spread)
        self._schedule()

    def spread(
        self, piece: Frame | Bundle, live: Mapping[R, AsgiWriter], left: Callable[[R, int], None]
    ) -> None:
        """Let a piece go to all who are live, by the turn's end or in slices after it.

        Args:
            piece: what they get.
            live: who they are, with their writers.
            left: called for who did not take all of it, with the number of its frames it took; at
                once or later, but before the next piece, and never after ``settle()``.
        """
        self.settle()
        sweep = _Sweep(piece, list(live), list(live.values()), left)
        # Where nobody is ready, as on other servers, lines are cheaper.
        if self._may_sweep and any(writer.ready for writer in sweep.writers[:LOOK_EVERY]):
            self._sweep = sweep
        else:
            self._queue(sweep, self._line_for(sweep))
        self._schedule()

    def settle(self) -> None:
        """Let nothing be on its way any more: what is, waits in the queues from now on.

        To be called before anybody leaves who was live, or whoever is live is asked what he has.
        """
        if self._sweep is not None:
            sweep, self._sweep = self._sweep, None
            self._queue(sweep, self._line_for(sweep))

    def _line_for(self, sweep: _Sweep) -> deque[AsgiWriter]:
        return self._many if len(sweep.writers) >= MANY else self._few

    def queue_again(self, writer: AsgiWriter) -> None:
        """Let a writer that had too much for one flush stand in line once more."""
        self._many.append(writer)

    def _queue(self, sweep: _Sweep, line: deque[AsgiWriter]) -> None:
        """Put what is left of a sweep into the queues of those who have not got it."""
        piece, size = sweep.piece, sweep.piece.size
        left: list[tuple[Any, int]] = []
        for index in range(sweep.done, len(sweep.writers)):
            writer = sweep.writers[index]
            try:
                need = size if writer.shared is not None else writer.need(piece)
                if writer.room < need:
                    writer.look()
                if writer.room >= need:
                    writer.room -= need
                    writer.ready = None
                    if not writer.queue:
                        line.append(writer)
                    writer.queue.append(piece)
                elif (taken := _push(sweep.receivers[index], piece)) is not None:
                    left.append((sweep.receivers[index], taken))
            except Exception:
                writer.give_up()
        # Last, since what they do may spread something else, which has to come behind this.
        for receiver, taken in left:
            try:
                sweep.left(receiver, taken)
            except Exception:
                logger.exception("a client that is behind could not be left to the log")

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        self.now = self.time()
        gathering, self._gathering = self._gathering, []
        is_idle = self._sweep is None and not self._few and not self._many
        self._may_sweep = is_idle and len(gathering) == 1
        for spread in gathering:
            try:
                spread()
            except Exception:
                logger.exception("an event could not be spread")
        self._may_sweep = False
        # The few first, but never so long that the many do not go on at all.
        self._flush(self._few, self.now + SLICE_SECONDS / 2)
        if self._sweep is not None:
            self._go_on(self._sweep, self.now + SLICE_SECONDS)
        self._flush(self._many, self.now + SLICE_SECONDS)
        if self._few or self._many or self._sweep:
            self._schedule()

    def _flush(self, line: deque[AsgiWriter], until: float) -> None:
        count = 0
        while line:
            writer = line.popleft()
            try:
                writer.flush()
            except Exception:
                writer.give_up()
            count += 1
            if count % LOOK_EVERY == 0 and self.time() >= until:
                break

    def _go_on(self, sweep: _Sweep, until: float) -> None:
        """Write a piece to those who have not got it yet, until a moment."""
        piece, need, data, size = sweep.piece, sweep.piece.size, b"", 0
        form: Wire | None = None
        while sweep.done < len(sweep.writers):
            end = min(sweep.done + LOOK_EVERY, len(sweep.writers))
            past = 0
            for index, writer in enumerate(sweep.writers[sweep.done : end], sweep.done):
                send = writer.ready
                if send is None or writer.room < need:
                    sweep.done = index + 1
                    self._go_round(sweep, index)
                    if self._sweep is not sweep:  # somebody has settled it meanwhile
                        self.direct += past
                        return
                    continue
                if writer.shared is not form:
                    form = writer.shared
                    assert form is not None, "or it is not ready"
                    data = piece.wire(form)
                    size = len(data)
                past += 1
                try:
                    sent = send(data)
                except OSError:
                    sent = 0  # it is full, which the server waits for, or broken, which it finds
                except Exception:
                    writer.give_up()
                    continue
                if sent != size:
                    _keep(writer, data[sent:])
            self.direct += past
            sweep.done = end
            if self.time() >= until:
                break
        if sweep.done == len(sweep.writers):
            self._sweep = None

    def _go_round(self, sweep: _Sweep, index: int) -> None:
        """Take the line with one of those in a sweep."""
        one = sweep.receivers[index : index + 1], sweep.writers[index : index + 1]
        self._queue(_Sweep(sweep.piece, *one, sweep.left), self._line_for(sweep))


def _push(receiver: Receiver, piece: Frame | Bundle) -> int | None:
    """Give a piece to a receiver that is asked about each frame.

    Returns:
        How many frames it took, if not all.
    """
    for taken, frame in enumerate(piece.frames):
        if not receiver.push(frame):
            return taken
    return None


def _keep(writer: AsgiWriter, rest: bytes) -> None:
    try:
        writer.keep(rest)
    except Exception:
        writer.give_up()
