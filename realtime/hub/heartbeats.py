"""When each connection has to hear something, so that no silence looks like the server's end.

One timer for all: a connection is looked at once in the time after which silence earns a heartbeat,
and not each time that the timer goes.
What all of them heard at the same moment must not have them all due at another one, so each waits
a little differently.
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

CHECK_SECONDS = 0.25  # connections whose time is that near are looked at together
SILENT_SECONDS = (18.0, 23.5)  # that earn a heartbeat, so that 25 s never pass in silence

HEARTBEAT_FRAME = Frame(HEARTBEAT)


class Heartbeats:
    """The connections, by the time at which they are looked at; used on the hub's loop only."""

    def __init__(self, flusher: Flusher) -> None:
        self._flusher = flusher
        self._due: dict[int, set[Connection]] = {}  # by CHECK_SECONDS since the clock began

    def add(self, connection: Connection, heard: float) -> None:
        """Look at a connection when it may have been silent for long enough.

        Args:
            connection: which is looked at once more; it has no place now.
            heard: when it last heard something, on the loop's clock.
        """
        connection.due = int((heard + random.uniform(*SILENT_SECONDS)) // CHECK_SECONDS) + 1
        self._due.setdefault(connection.due, set()).add(connection)

    def discard(self, connection: Connection) -> None:
        """Look at a connection no more. Once is enough."""
        if (there := self._due.get(connection.due)) is not None:
            there.discard(connection)

    def push(self, now: float) -> None:
        """Give a heartbeat to those who have heard nothing for long enough."""
        silent: dict[Connection, AsgiWriter] = {}
        for due in [due for due in self._due if due * CHECK_SECONDS <= now]:
            for connection in self._due.pop(due):
                try:
                    heard = connection.heard()
                except Exception:
                    logger.exception("a connection could not be looked at")
                    heard = 0.0
                if heard <= now - SILENT_SECONDS[0]:
                    silent[connection] = connection.writer
                    heard = now
                self.add(connection, heard)
        if silent:
            self._flusher.spread(HEARTBEAT_FRAME, silent, _is_full)


def _is_full(connection: Connection, taken: int) -> None:
    """Pass over who is full, which is no silence."""
