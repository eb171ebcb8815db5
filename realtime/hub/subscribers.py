"""Those who are live on a topic, and what goes to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from realtime.hub.recent import EventFrame
from realtime.protocol.encoders import Bundle, Frame, bundle
from realtime.protocol.events import Cursor
from realtime.writers.asgi import AsgiWriter
from realtime.writers.flusher import Flusher, Receiver

__all__ = ["Subscriber", "Subscribers"]


class Subscriber(Receiver, Protocol):
    """What a topic needs of a live subscription."""

    @property
    def writer(self) -> AsgiWriter:
        """The way to its client."""

    def fall_behind(self, position: Cursor) -> None:
        """Go on from the log after this cursor; called once the topic has let go."""


class Subscribers:
    """The live part of a topic; used on the hub's loop only.

    Attributes:
        live: who gets each event as it comes, with the way to its client.
        last_spread: when something last went to them, on the loop's clock.
    """

    def __init__(self, flusher: Flusher) -> None:
        self.live: dict[Subscriber, AsgiWriter] = {}
        self.last_spread = 0.0
        self._flusher = flusher
        self._outgoing: list[Frame] = []  # gathered, and not spread yet
        self._before: Cursor | None = None  # the position before the first of them

    def gather(self, frame: Frame, before: Cursor | None) -> None:
        """Take a frame for all who are live; what comes in one turn of the loop leaves together.

        Args:
            frame: what they get.
            before: the topic's position without it.
        """
        if not self._outgoing:
            self._before = before
            self._flusher.call_before(self.spread)
        self._outgoing.append(frame)

    def spread(self) -> None:
        """Let what was gathered go to all who are live."""
        if not self._outgoing:
            return
        frames, self._outgoing = self._outgoing, []
        self.last_spread = self._flusher.time()
        left = partial(self._left_out, frames, self._before)
        self._flusher.spread(bundle(frames), self.live, left)

    def _left_out(
        self, frames: Sequence[Frame], before: Cursor | None, subscriber: Subscriber, taken: int
    ) -> None:
        """Leave behind who has taken only so many of these frames."""
        # An ephemeral event is missed by one that is full: at most once.
        if any(isinstance(frame, EventFrame) for frame in frames[taken:]):
            places = [frame.cursor for frame in frames[:taken] if isinstance(frame, EventFrame)]
            self._leave_behind(places[-1] if places else before, subscriber)

    def _leave_behind(self, position: Cursor | None, subscriber: Subscriber, _: int = 0) -> None:
        assert position is not None
        del self.live[subscriber]
        subscriber.fall_behind(position)

    def hand_out(self) -> None:
        """Let everybody who is live have all that was delivered, in his queue at least."""
        self.spread()
        self._flusher.settle()

    def admit(self, subscriber: Subscriber) -> None:
        """Let somebody be live whose position is the topic's."""
        self.spread()  # which it has already
        self.live[subscriber] = subscriber.writer

    def dismiss(self, subscriber: Subscriber) -> None:
        """Let somebody be live no more, if he is."""
        if subscriber in self.live:
            self._flusher.settle()
            self.live.pop(subscriber, None)

    def spread_over(self, piece: Frame | Bundle, before: Cursor) -> None:
        """Give all who are live what carries them over a hole behind a position, or leave them."""
        self._flusher.spread(piece, self.live, partial(self._leave_behind, before))
