"""LISTEN on PostgreSQL: a process is notified of its messages, once that is verified to work.

The connection is not one of Django's: it is opened outside the pool, stays in autocommit and only
listens.

**Verified** means that a notification which was sent on the connection of the layer's thread has
arrived on the listening connection.
A pooler that hands out connections by transaction, such as pgbouncer, accepts LISTEN and delivers
no notification; so do some servers that speak PostgreSQL's protocol.
The test needs two connections: a connection that notifies itself receives the notification with
the answer to its own statement, even through a pooler.

Until LISTEN is verified, and after any sign that it no longer works, the process polls.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any, cast

from django.db import Error, connections

from realtime.exceptions import StoreError
from realtime.layers.outgoing import SHARED_CHANNEL, inbox_channel
from realtime.layers.sql import notify
from realtime.layers.storage import LayerStorage
from realtime.outage import Outage

__all__ = ["Listener"]

logger = logging.getLogger("realtime.layers")

CONNECT_SECONDS = 5  # for a new connection, during which the layer's thread does nothing else
VERIFY_SECONDS = 5.0  # for a notification to arrive; on an idle server it takes 1 ms
RETRY_SECONDS = (1.0, 60.0)  # the first and the longest wait before LISTEN is tried again


class Listener:
    """Listens for one process; every method is called in the layer's thread and never raises.

    Attributes:
        verified: whether notifications arrive, so that polling every few seconds is enough.
        due: when ``maintain()`` has something to do, on the clock of ``time.monotonic()``.
    """

    def __init__(self, storage: LayerStorage) -> None:
        self.storage = storage
        self.verified = False
        self.due = 0.0
        self._connection: Any = None
        self._token = ""  # the payload of the notification that verifies the connection
        self._outage = Outage(
            "LISTEN does not work (%s); polling until it does",
            backoff=RETRY_SECONDS,
            level=logging.INFO,
            expected=Exception,
            logger=logger,
        )

    @property
    def socket(self) -> int | None:
        """The descriptor that becomes readable when a notification arrives."""
        return None if self._connection is None else cast("int", self._connection.fileno())

    def maintain(self) -> None:
        """Connect when it is time to; close a connection that was not verified in time."""
        if time.monotonic() < self.due:
            return
        own = connections[self.storage.using]
        if own.vendor != "postgresql" or cast("Any", own).Database.__name__ != "psycopg":
            self.due = math.inf  # other databases have no LISTEN; the code below needs psycopg 3
            return
        try:
            if self._connection is not None:
                # There is a pooler, or the connection is dead.
                raise TimeoutError("a notification to itself did not arrive")
            self._connect()
            self._send_token()
        except (Error, StoreError, OSError, self._driver.Error) as error:
            self._disconnect(error)

    def receive(self, channels: Collection[str]) -> bool:
        """Read the notifications that arrived; return True if there may be messages.

        Args:
            channels: the shared channels that this process reads.
        """
        found = False
        try:
            self._connection.pgconn.consume_input()
            while (notice := self._connection.pgconn.notifies()) is not None:
                payload = notice.extra.decode()
                if notice.relname.decode() == SHARED_CHANNEL:
                    found |= payload in channels
                elif not payload:
                    found = True
                elif payload == self._token:
                    # Notifications of earlier messages may have been missed.
                    found = self.verified = True
                    self._outage.over()
                    self.due = math.inf
        except (OSError, self._driver.Error) as error:
            self._disconnect(error)
            self.due = 0.0  # it worked before: the server may have restarted
            return True
        return found

    def verify_again(self) -> None:
        """Verify the connection again; call this after a message that no notification announced."""
        try:
            self._send_token()
        except StoreError as error:
            self._disconnect(error)

    def close(self) -> None:
        """Close the connection; ``maintain()`` opens another."""
        if self._connection is not None:
            with suppress(OSError, self._driver.Error):
                self._connection.close()
        self._connection, self.verified, self.due = None, False, 0.0

    @property
    def _driver(self) -> Any:
        return cast("Any", connections[self.storage.using]).Database

    def _connect(self) -> None:
        params = cast("Any", connections[self.storage.using]).get_connection_params()
        params.setdefault("connect_timeout", CONNECT_SECONDS)
        self._connection = self._driver.connect(**params | {"autocommit": True})
        for channel in (inbox_channel(self.storage.inbox), SHARED_CHANNEL):
            self._connection.execute(f'LISTEN "{channel}"')

    def _send_token(self) -> None:
        self.verified = False
        self._token = secrets.token_hex(8)
        self.due = time.monotonic() + VERIFY_SECONDS
        notice = (inbox_channel(self.storage.inbox), self._token)
        self.storage.database.read(lambda connection: notify(connection, [notice]))

    def _disconnect(self, error: Exception) -> None:
        pause = self._outage.failed(error)
        self.close()
        self.due = time.monotonic() + pause
