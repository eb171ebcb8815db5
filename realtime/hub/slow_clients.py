"""Close the slowest clients while the clients of this process have too many unsent bytes together.

A writer adds itself to ``Flusher.behind`` when the socket does not take its bytes at once. So a
delivery costs nothing, and a check visits only the clients that are behind.

The slowest client is the one with the largest product of its unsent bytes and the time since it
last took any: the memory that it holds, times how long it holds it. By the size alone, a client
that reads a burst would be closed before one that stopped reading long ago; by the time alone,
phones without a connection, with a few bytes each, would be closed before a client that holds a
megabyte.
A client that is closed resumes from its cursors, so it loses no stored event.
"""

from __future__ import annotations

import logging

from realtime.protocol.frames import CloseCode
from realtime.writers.flusher import BufferedClient, Flusher

__all__ = ["LOG_SECONDS", "SlowClients"]

logger = logging.getLogger("realtime")

MIN_STALL_SECONDS = 0.1  # of a client that has taken bytes since the last check, 0.25 s ago
LOG_SECONDS = 60.0  # between two log lines at least


class SlowClients:
    """The clients of a process that are behind; used on the hub's loop only.

    Args:
        flusher: the hub's flusher, whose writers are checked.
        limit: unsent bytes of all clients together, beyond which the slowest are closed.

    Attributes:
        limit: as above.
        unsent: the unsent bytes at the last check, without those of the clients that it closed.
    """

    def __init__(self, flusher: Flusher, limit: int) -> None:
        self.limit = limit
        self.unsent = 0
        self._flusher = flusher
        # By client: what it had taken when it last took any, and when that was noticed.
        self._progress: dict[BufferedClient, tuple[int, float]] = {}
        self._was_beyond = False  # the last check found more than the limit
        self._closed = 0  # since the last log line
        self._next_log = 0.0

    def check(self, now: float) -> None:
        """Count the unsent bytes, and close the slowest clients until they are within the limit.

        Clients are closed only at the second check in a row that finds too much: the first one
        cannot tell a client that reads a burst from one that reads nothing.

        Args:
            now: the time on the loop's clock.
        """
        progress: dict[BufferedClient, tuple[int, float]] = {}
        sizes: dict[BufferedClient, int] = {}
        for client in list(self._flusher.behind):
            if not (unsent := client.unsent):
                self._flusher.behind.discard(client)
                continue
            sizes[client] = unsent
            before, drained = self._progress.get(client), client.drained
            progress[client] = (drained, now) if before is None or drained > before[0] else before
        self._progress = progress
        self.unsent = sum(sizes.values())
        if self.unsent > self.limit and self._was_beyond:
            self._close_slowest(sizes, now)
        self._was_beyond = self.unsent > self.limit
        if self._closed and now >= self._next_log:
            logger.warning(
                "closed %d slow clients, because more than %d bytes were unsent in this process; "
                'REALTIME["LIMITS"]["total_buffer_bytes"] is the limit',
                self._closed,
                self.limit,
            )
            self._closed, self._next_log = 0, now + LOG_SECONDS

    def _close_slowest(self, sizes: dict[BufferedClient, int], now: float) -> None:
        def slowness(client: BufferedClient) -> float:
            return sizes[client] * max(now - self._progress[client][1], MIN_STALL_SECONDS)

        for client in sorted(sizes, key=slowness, reverse=True):
            if self.unsent <= self.limit:
                break
            self.unsent -= sizes[client]
            self._closed += 1
            self._flusher.behind.discard(client)
            self._progress.pop(client)
            try:
                client.request_close(CloseCode.SLOW)
            except Exception:
                logger.exception("a slow client could not be closed")
