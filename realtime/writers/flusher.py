"""Flush the writers at the end of each turn of the loop, with one write for each client.

A *piece* is a frame or a bundle. A piece for many clients goes one of two ways, which differ only
in their cost:

- **Queues.** The piece waits in each writer's queue, and the writers wait for their flush.
  Frames that arrive meanwhile leave with it, so the more there is to do, the less an event costs.
- **A write pass.** While one piece for many clients is all there is to do, it is written to one
  socket after the other, bypassing the queues.
  As soon as anything else arrives, ``end_pass()`` queues the piece for the clients that are left.

Neither holds the loop for longer than a slice of 5 ms, so that accepts, heartbeats and commands go
on, and a frame for few clients does not wait for a frame for thousands.
Only queueing a piece is not sliced: it takes a twentieth of the time of writing it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from realtime.writers.asgi import AsgiWriter, Piece

if TYPE_CHECKING:
    from realtime.protocol.encoders import Frame, Wire
    from realtime.protocol.frames import CloseCode

__all__ = ["BufferedClient", "Flusher", "Recipient", "WritePath"]

logger = logging.getLogger("realtime")

#: The path of a write: to the socket, to the server's buffer behind unsent bytes, or through the
#: server's ``send()``.
WritePath: TypeAlias = Literal["direct", "buffered", "portable"]

SLICE_SECONDS = 0.005  # that a flush holds the loop at most; everything else waits for it
CLOCK_EVERY = 16  # writes between two readings of the clock, about 0.15 ms
BULK_CLIENTS = 100  # a piece for this many clients or more is bulk; others are flushed before it


class Recipient(Protocol):
    """Accepts frames one by one, when a whole piece may not fit into its client's buffer."""

    def push(self, frame: Frame) -> bool:
        """Queue a frame; return False if the client's buffer is full."""


class BufferedClient(Protocol):
    """A client whose unsent bytes are counted."""

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the client has not taken."""

    @property
    def drained(self) -> int:
        """A number that grows when the client takes bytes."""

    def request_close(self, code: CloseCode) -> None:
        """Have the connection closed, and the bytes dropped."""


R = TypeVar("R", bound=Recipient)


@dataclass(slots=True)
class _WritePass:
    """A piece on its way to many clients.

    Attributes:
        piece: a frame or a bundle.
        recipients: those that were live when the pass began.
        writers: the writer of each of them, in the same order.
        on_full: see ``Flusher.write_all()``.
        done: how many of them the pass has reached.
    """

    piece: Piece
    recipients: list[Any]
    writers: list[AsgiWriter]
    on_full: Callable[[Any, int], None]
    done: int = 0


class Flusher:
    """Flushes the writers of one loop, and runs its write passes; used on that loop only.

    Attributes:
        time: returns the loop's time.
        now: the loop's time when the last flush began.
        behind: the writers that can have unsent bytes; see ``realtime.hub.slow_clients``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.now = self.time()
        self.behind: set[BufferedClient] = set()
        self._loop = loop
        self._counts: dict[str, int] = {"direct": 0, "buffered": 0, "portable": 0}
        self._interactive: deque[AsgiWriter] = deque()  # wait for a flush of frames for few clients
        self._bulk: deque[AsgiWriter] = deque()  # wait for a flush of frames for many clients
        self._before_flush: list[Callable[[], None]] = []
        self._pass: _WritePass | None = None
        self._may_begin_pass = False
        self._is_scheduled = False

    @property
    def writes(self) -> dict[str, int]:
        """How many writes took each path; see ``WritePath``."""
        return self._counts.copy()

    def add(self, writer: AsgiWriter) -> None:
        """Flush a writer at the end of the turn; its queue was empty until now."""
        self._interactive.append(writer)
        self._schedule()

    def requeue(self, writer: AsgiWriter) -> None:
        """Flush again a writer whose queue was too much for one flush."""
        self._bulk.append(writer)

    def flush_now(self, writer: AsgiWriter) -> None:
        """Flush one writer at once, because it closes."""
        if (path := writer.flush()) is not None:
            self._counts[path] += 1

    def call_before_flush(self, push_batch: Callable[[], None]) -> None:
        """Call a function before the next flush, to push the batch of the turn."""
        self._before_flush.append(push_batch)
        self._schedule()

    def write_all(
        self, piece: Piece, recipients: Mapping[R, AsgiWriter], on_full: Callable[[R, int], None]
    ) -> None:
        """Write a piece to many clients, by the end of the turn or in slices after it.

        Args:
            piece: a frame or a bundle.
            recipients: whom it is for, with the writer of each.
            on_full: called with a recipient whose buffer had no room for all frames of the piece,
                and the number of frames that it accepted. It is called at once or later, but
                before the next piece is written, and never after ``end_pass()``.
        """
        self.end_pass()
        write_pass = _WritePass(piece, list(recipients), list(recipients.values()), on_full)
        # On servers other than Daphne, no client can be written to directly, and queues cost less.
        if self._may_begin_pass and any(w.send_direct for w in write_pass.writers[:CLOCK_EVERY]):
            self._pass = write_pass
        else:
            self._queue(write_pass, 0, None)
        self._schedule()

    def end_pass(self) -> None:
        """End the write pass: queue its piece for the clients that it has not reached.

        Call this before a recipient is removed, or before its queue is inspected.
        """
        if self._pass is not None:
            write_pass, self._pass = self._pass, None
            self._queue(write_pass, write_pass.done, None)

    def _queue(self, write_pass: _WritePass, start: int, end: int | None) -> None:
        """Queue a pass's piece for some of its clients."""
        piece, recipients = write_pass.piece, write_pass.recipients[start:end]
        writers = write_pass.writers[start:end]
        is_bulk = len(write_pass.writers) >= BULK_CLIENTS
        to_flush = self._bulk if is_bulk else self._interactive
        full: list[tuple[Any, int]] = []
        for index in AsgiWriter.queue_for_all(piece, writers, to_flush):
            try:
                accepted = _push(recipients[index], piece)
            except Exception:
                writers[index].fail()
                continue
            if accepted is not None:
                full.append((recipients[index], accepted))
        # Last, since on_full() may write another piece, which has to come after this one.
        for recipient, accepted in full:
            try:
                write_pass.on_full(recipient, accepted)
            except Exception:
                logger.exception("a client whose buffer is full could not fall back on the log")

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        self.now = self.time()
        batches, self._before_flush = self._before_flush, []
        is_idle = self._pass is None and not self._interactive and not self._bulk
        self._may_begin_pass = is_idle and len(batches) == 1
        for push_batch in batches:
            try:
                push_batch()
            except Exception:
                logger.exception("the events of a topic could not be pushed")
        self._may_begin_pass = False
        # Half a slice at most for these, so that the rest always goes on.
        self._flush_writers(self._interactive, self.now + SLICE_SECONDS / 2)
        if self._pass is not None:
            self._continue_pass(self._pass, self.now + SLICE_SECONDS)
        self._flush_writers(self._bulk, self.now + SLICE_SECONDS)
        if self._interactive or self._bulk or self._pass:
            self._schedule()

    def _flush_writers(self, writers: deque[AsgiWriter], until: float) -> None:
        counts = self._counts
        count = 0
        while writers:
            writer = writers.popleft()
            try:
                if (path := writer.flush()) is not None:  # as flush_now(), without the call
                    counts[path] += 1
            except Exception:
                writer.fail()
            count += 1
            if count % CLOCK_EVERY == 0 and self.time() >= until:
                break

    def _continue_pass(self, write_pass: _WritePass, until: float) -> None:
        """Write the piece to the clients that the pass has not reached, until a time."""
        piece, need, data, size = write_pass.piece, write_pass.piece.size, b"", 0
        wire_format: Wire | None = None
        while write_pass.done < len(write_pass.writers):
            start = write_pass.done
            end = min(start + CLOCK_EVERY, len(write_pass.writers))
            sent_direct = 0
            for index, writer in enumerate(write_pass.writers[start:end], start):
                send = writer.send_direct
                if send is None or writer.available < need:
                    write_pass.done = index + 1
                    self._queue(write_pass, index, index + 1)
                    if self._pass is not write_pass:  # on_full() has ended it
                        self._counts["direct"] += sent_direct
                        return
                    continue
                if writer.wire_format is not wire_format:
                    wire_format = writer.wire_format
                    assert wire_format is not None, "send_direct is None without one"
                    data = piece.wire(wire_format)
                    size = len(data)
                sent_direct += 1
                try:
                    sent = send(data)
                except OSError:
                    sent = 0  # the socket is full or broken; the server finds out which
                except Exception:
                    writer.fail()
                    continue
                if sent != size:
                    _buffer_rest(writer, data[sent:])
            self._counts["direct"] += sent_direct
            write_pass.done = end
            if self.time() >= until:
                break
        if write_pass.done == len(write_pass.writers):
            self._pass = None


def _push(recipient: Recipient, piece: Piece) -> int | None:
    """Push the frames of a piece one by one.

    Returns:
        How many frames the recipient accepted, or None if it accepted all.
    """
    for accepted, frame in enumerate(piece.frames):
        if not recipient.push(frame):
            return accepted
    return None


def _buffer_rest(writer: AsgiWriter, rest: bytes) -> None:
    try:
        writer.buffer_rest(rest)
    except Exception:
        writer.fail()
