"""Let what waits for clients leave at the end of a turn of the loop, each client's in one write.

A burst that arrives while the clients before are still written to finds the later ones with more
than one event waiting: the more there is to do, the less each event costs.
No flush holds the loop for longer than a slice, so that accepts, heartbeats and commands go on; and
what concerns few clients does not stand in line behind what concerns thousands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from realtime.encoders import Bundle, Frame
    from realtime.writers.asgi import AsgiWriter

__all__ = ["Flusher", "Receiver"]

logger = logging.getLogger("realtime")

SLICE_SECONDS = 0.005  # that a flush holds the loop; others wait so long at most
LOOK_EVERY = 16  # writes between looks at the clock, which are about 0.15 ms
MANY = 100  # receivers of one piece, from which they stand in the line of the many


class Receiver(Protocol):
    """Who gets what is spread."""

    @property
    def writer(self) -> AsgiWriter:
        """The way to its client."""

    def push(self, frame: Frame) -> bool:
        """Take a frame; False if the client's buffer is full."""


R = TypeVar("R", bound=Receiver)


class Flusher:
    """The lines of writers that have something to write; used on one loop only.

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
        self._before: list[Callable[[], None]] = []
        self._is_scheduled = False

    def add(self, writer: AsgiWriter) -> None:
        """Flush a writer at the end of the turn; its queue was empty."""
        self._few.append(writer)
        self._schedule()

    def call_before(self, spread: Callable[[], None]) -> None:
        """Call a function before the next flush, to spread what was gathered until then."""
        self._before.append(spread)
        self._schedule()

    def spread(self, piece: Frame | Bundle, receivers: Collection[R]) -> list[tuple[R, int]]:
        """Queue a piece for all receivers.

        Returns:
            Those who did not take all of it, each with the number of its frames that they took.
        """
        line = self._many if len(receivers) >= MANY else self._few
        size = piece.size
        left: list[tuple[R, int]] = []
        for receiver in receivers:
            writer = receiver.writer
            if writer.room < size:
                writer.look()
            if writer.room >= size:
                writer.room -= size
                if not writer.queue:
                    line.append(writer)
                writer.queue.append(piece)
                continue
            for taken, frame in enumerate(piece.frames):
                if not receiver.push(frame):
                    left.append((receiver, taken))
                    break
        self._schedule()
        return left

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        self.now = self.time()
        while self._before:
            before, self._before = self._before, []
            for spread in before:
                spread()
        # The few first, but never so long that the many do not go on at all.
        self._flush(self._few, self.now + SLICE_SECONDS / 2)
        self._flush(self._many, self.now + SLICE_SECONDS)
        if self._few or self._many:
            self._schedule()

    def _flush(self, line: deque[AsgiWriter], until: float) -> None:
        direct = count = 0
        while line:
            writer = line.popleft()
            try:
                direct += writer.flush()
            except Exception:
                # Nobody else may wait for ever because of it; this client hears nothing more, and
                # comes back when the heartbeats fail to.
                logger.exception("writing to a client failed")
                writer.abandon()
            count += 1
            if count % LOOK_EVERY == 0 and self.time() >= until:
                break
        self.direct += direct
