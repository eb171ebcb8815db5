"""The quota of bytes that all clients of a site together can store in a day.

``publish()`` on the server is never limited; only client events that are stored count.
"""

from __future__ import annotations

import time
from typing import NoReturn

from realtime import conf
from realtime.exceptions import ProtocolError
from realtime.outage import Outage
from realtime.protocol.frames import ErrorCode
from realtime.stores import get_store
from realtime.stores.base import Store

__all__ = ["ROW_BYTES", "ClientQuota", "spend_quota"]

NAME = "stored_client_bytes"  # of the counter in the store
DAY_SECONDS = 86_400.0
# Counted in addition to an event's name and data: what its row and its index entries take. So a
# client cannot fill the log with empty events.
ROW_BYTES = 256
# A process takes a thousandth of the limit at a time and spends it from memory, so that few events
# write to the counter, which all processes share.
CHUNKS = 1_000
PAUSE_SECONDS = 10.0  # before the store is asked again, once the quota was used up


class ClientQuota:
    """The part of the site's quota that this process has taken and not spent.

    Attributes:
        store: where the logs are, and the site's counter.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._left = 0
        self._refused_until = 0.0
        self._outage = Outage(
            "client events are not stored: %s",
            "client events are stored again",
            expected=ProtocolError,
        )

    async def spend(self, size: int) -> None:
        """Count an event that is about to be stored.

        Args:
            size: the bytes of its name and data.

        Raises:
            ProtocolError: the site's clients have used up the quota.
            StoreError: the counter cannot be reached.
        """
        amount = size + ROW_BYTES
        # Several calls can wait for the store at once; each then adds what it took.
        while amount > self._left:
            limit = conf.get().limits.stored_client_bytes_per_day
            chunk = max(amount, limit // CHUNKS)
            if _now() < self._refused_until:
                self._refuse(limit)
            if not await self.store.atake(NAME, chunk, limit, DAY_SECONDS):
                self._refused_until = _now() + PAUSE_SECONDS
                self._refuse(limit)
            self._left += chunk
            self._outage.over()
        self._left -= amount

    def _refuse(self, limit: int) -> NoReturn:
        reason = (
            f"the clients of this site may store {limit} bytes of events a day "
            '(REALTIME["LIMITS"]["stored_client_bytes_per_day"]), which are used up; '
            "send this one again later"
        )
        error = ProtocolError(ErrorCode.RATE_LIMITED, reason)
        self._outage.failed(error)
        raise error


def _now() -> float:
    return time.monotonic()


# One for the store of the process. After a change of the settings, as in tests, there is another
# store, whose counter is another too.
_quota: ClientQuota | None = None


async def spend_quota(size: int) -> None:
    """Count an event of a client that is about to be stored; see ``ClientQuota.spend()``."""
    global _quota
    store = get_store()
    if _quota is None or _quota.store is not store:
        _quota = ClientQuota(store)
    await _quota.spend(size)
