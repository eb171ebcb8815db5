"""How fast those who come without a connection of their own may go on.

A WebSocket counts its commands itself; a request belongs to its user, or to the address that it
came from where nobody is signed in.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from realtime import conf
from realtime.auth.addresses import source_of
from realtime.consumers.http import HttpError
from realtime.protocol.dialogue import Bucket
from realtime.protocol.frames import ErrorCode

__all__ = ["Rates", "take_command", "take_turn"]

KNOWN_SENDERS = 10_000  # whose rates are remembered; the one that was silent longest is forgotten
PATIENCE_SECONDS = 1.0  # that a poll or a stream may wait for its turn


class Rates:
    """A bucket a sender, of the newest ``KNOWN_SENDERS``; may be used in several threads."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, sender: str, patience: float) -> float:
        """Take a turn and return in how many seconds it is, at most ``patience``.

        Raises:
            HttpError: it would be later; none is taken.
        """
        limits = conf.get().limits
        with self._lock:
            bucket = self._buckets.pop(sender, None)
            if bucket is None:
                bucket = Bucket(limits.commands_per_second, limits.commands_burst)
            self._buckets[sender] = bucket
            if len(self._buckets) > KNOWN_SENDERS:
                self._buckets.popitem(last=False)
            wait = bucket.reserve(_now(), patience)
        if wait <= patience:
            return wait
        rate = f"{limits.commands_per_second} a second, {limits.commands_burst} at once"
        raise HttpError(
            HTTPStatus.TOO_MANY_REQUESTS,
            ErrorCode.RATE_LIMITED,
            f"too many requests of this user or address; it may make {rate}",
            "send it again later",
            {"Retry-After": str(math.ceil(wait))},
        )


def take_command(scope: Mapping[str, Any], user: Any) -> None:
    """Count a command.

    Raises:
        HttpError: there were too many.
    """
    _commands.take(_name_of(user) or f"address {source_of(scope).name}", 0.0)


def take_turn(scope: Mapping[str, Any], user: Any, patience: float = PATIENCE_SECONDS) -> float:
    """Count a poll or a stream, and return how many seconds it has to wait before it goes on.

    Slowing down comes before refusing, since a browser gives an event stream up for good that was
    refused once.
    Nobody is counted who shares an address with others, as all who come through a proxy that is
    not in ``TRUSTED_PROXIES``: a whole site's visitors would have the rate of one.

    Raises:
        HttpError: there are so many that it would have to wait for longer than ``patience``.
    """
    name = _name_of(user)
    if name is None:
        source = source_of(scope)
        if source.is_shared:
            return 0.0
        name = f"address {source.name}"
    return _turns.take(name, patience)


def _name_of(user: Any) -> str | None:
    return None if user is None or not user.is_authenticated else f"user {user.pk}"


def _now() -> float:
    return time.monotonic()


_commands = Rates()
_turns = Rates()
