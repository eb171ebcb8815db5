"""How a process hears of letters on PostgreSQL: LISTEN, once it is proved that it works.

The connection is not Django's: it is made beside the pool, stays in autocommit, and only listens.

**Proved** means that a notification, sent on the connection of the layer's thread, was heard on
this one.
A pooler that hands out connections by transaction, such as pgbouncer, accepts LISTEN and lets
nothing through; so do some servers that speak PostgreSQL's protocol.
It has to come from another connection: one that notifies itself is told with the answer to its own
statement, whoever stands in between.

Until it is proved, and as soon as anything speaks against it, the process polls.
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
from realtime.layers.tables import LayerTables
from realtime.outage import Outage

__all__ = ["Listener"]

logger = logging.getLogger("realtime.layers")

CONNECT_SECONDS = 5  # the layer's thread waits for a new connection; less than callers wait for it
PROOF_SECONDS = 5.0  # that a notification to oneself may take; on an idle server it takes 1 ms
RETRY_SECONDS = (1.0, 60.0)  # first and longest pause before LISTEN is tried again


class Listener:
    """Listens for one process; every method is called in the layer's thread, and none raises.

    Attributes:
        proved: letters are heard of, so that looking for them now and then is enough.
        due: when ``keep()`` has something to do (``time.monotonic()``).
    """

    def __init__(self, tables: LayerTables) -> None:
        self.tables = tables
        self.proved = False
        self.due = 0.0
        self._connection: Any = None
        self._token = ""
        self._outage = Outage(
            "LISTEN does not work (%s); polling until it does",
            backoff=RETRY_SECONDS,
            level=logging.INFO,
            expected=Exception,
            logger=logger,
        )

    @property
    def socket(self) -> int | None:
        """The descriptor that can be read when there is something to hear."""
        return None if self._connection is None else cast("int", self._connection.fileno())

    def keep(self) -> None:
        """Connect if it is time to, and give up a connection on which nothing was heard."""
        if time.monotonic() < self.due:
            return
        own = connections[self.tables.using]
        if own.vendor != "postgresql" or cast("Any", own).Database.__name__ != "psycopg":
            self.due = math.inf  # psycopg 2 is not made to be waited for
            return
        try:
            if self._connection is not None:
                raise TimeoutError("a notification to itself did not arrive")  # a pooler, or dead
            self._connect()
            self._prove()
        except (Error, StoreError, OSError, self._driver.Error) as error:
            self._give_up(error)

    def hear(self, wanted: Collection[str]) -> bool:
        """Read what has arrived; True if letters may wait for this process.

        Args:
            wanted: shared channels that are read here.
        """
        heard = False
        try:
            self._connection.pgconn.consume_input()
            while (notice := self._connection.pgconn.notifies()) is not None:
                payload = notice.extra.decode()
                if notice.relname.decode() == SHARED_CHANNEL:
                    heard |= payload in wanted
                elif not payload:
                    heard = True
                elif payload == self._token:
                    heard = self.proved = True  # what came before it was not heard for sure
                    self._outage.over()
                    self.due = math.inf
        except (OSError, self._driver.Error) as error:
            self._give_up(error)
            self.due = 0.0  # it has worked: the server may have been restarted
            return True
        return heard

    def doubt(self) -> None:
        """Have it proved anew: there was a letter that was not heard of."""
        try:
            self._prove()
        except StoreError as error:
            self._give_up(error)

    def close(self) -> None:
        """End the connection; ``keep()`` makes another."""
        if self._connection is not None:
            with suppress(OSError, self._driver.Error):
                self._connection.close()
        self._connection, self.proved, self.due = None, False, 0.0

    @property
    def _driver(self) -> Any:
        return cast("Any", connections[self.tables.using]).Database

    def _connect(self) -> None:
        params = cast("Any", connections[self.tables.using]).get_connection_params()
        params.setdefault("connect_timeout", CONNECT_SECONDS)
        self._connection = self._driver.connect(**params | {"autocommit": True})
        for channel in (inbox_channel(self.tables.inbox), SHARED_CHANNEL):
            self._connection.execute(f'LISTEN "{channel}"')

    def _prove(self) -> None:
        self.proved = False
        self._token = secrets.token_hex(8)
        self.due = time.monotonic() + PROOF_SECONDS
        notice = (inbox_channel(self.tables.inbox), self._token)
        self.tables.database.read(lambda connection: notify(connection, [notice]))

    def _give_up(self, error: Exception) -> None:
        pause = self._outage.failed(error)
        self.close()
        self.due = time.monotonic() + pause
