"""Heartbeats: a client that receives nothing for a while gets one, so it knows the server is alive.

One timer serves all connections. A connection is not checked at each tick: its next check is when
it would need a heartbeat if nothing were written to it until then.
Due times are jittered, so that clients that received the same event are not all due together.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from realtime.protocol.encoders import Frame
from realtime.protocol.frames import HEARTBEAT

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.writers.asgi import AsgiWriter
    from realtime.writers.flusher import Flusher

__all__ = ["CHECK_SECONDS", "SILENT_SECONDS", "Heartbeats"]

logger = logging.getLogger("realtime")

CHECK_SECONDS = 0.25  # connections due within this time are checked together
SILENT_SECONDS = (18.0, 23.5)  # of silence before a heartbeat: 25 s never pass without a frame

HEARTBEAT_FRAME = Frame(HEARTBEAT)


class Heartbeats:
    """The connections by the time of their next check; used on the hub's loop only."""

    def __init__(self, flusher: Flusher) -> None:
        self._flusher = flusher
        self._due: dict[int, set[Connection]] = {}  # by time on the loop's clock, in CHECK_SECONDS

    def add(self, connection: Connection, last_write: float) -> None:
        """Schedule a check for when the connection can have been silent for too long.

        Args:
            connection: a connection that has no scheduled check.
            last_write: when something was last written to it, on the loop's clock.
        """
        connection.due = int((last_write + random.uniform(*SILENT_SECONDS)) // CHECK_SECONDS) + 1
        self._due.setdefault(connection.due, set()).add(connection)

    def discard(self, connection: Connection) -> None:
        """Stop checking a connection. Idempotent."""
        if (waiting := self._due.get(connection.due)) is not None:
            waiting.discard(connection)

    def push(self, now: float) -> None:
        """Push a heartbeat to the connections that have been silent for too long."""
        silent: dict[Connection, AsgiWriter] = {}
        for due in [due for due in self._due if due * CHECK_SECONDS <= now]:
            for connection in self._due.pop(due):
                try:
                    last_write = connection.last_write()
                except Exception:
                    logger.exception("a connection could not be checked for silence")
                    last_write = 0.0
                if last_write <= now - SILENT_SECONDS[0]:
                    silent[connection] = connection.writer
                    last_write = now
                self.add(connection, last_write)
        if silent:
            self._flusher.write_all(HEARTBEAT_FRAME, silent, _skip)


def _skip(connection: Connection, accepted: int) -> None:
    """Skip a client whose buffer is full: frames are on their way to it."""
