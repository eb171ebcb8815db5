"""Rate limits for clients without a persistent connection.

A WebSocket limits its own commands, in ``Dialogue``.
An HTTP request counts for its user or, if nobody is signed in, for the address it came from.
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

__all__ = ["RateLimiter", "limit_command", "limit_request"]

MAX_CLIENTS = 10_000  # users and addresses with a bucket; the least recently used bucket is dropped
MAX_DELAY_SECONDS = 1.0  # longest delay of a poll or a stream; it is refused if it would take more


class RateLimiter:
    """Token buckets by client, for the most recent ``MAX_CLIENTS`` clients; thread-safe."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def reserve(self, client: str, max_delay: float) -> float:
        """Reserve a token of a client's bucket and return the seconds until it is available.

        Raises:
            HttpError: the token would take more than ``max_delay`` seconds; none is reserved.
        """
        limits = conf.get().limits
        with self._lock:
            bucket = self._buckets.pop(client, None)
            if bucket is None:
                bucket = Bucket(limits.commands_per_second, limits.commands_burst)
            self._buckets[client] = bucket
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
            delay = bucket.reserve(_now(), max_delay)
        if delay <= max_delay:
            return delay
        rate = f"{limits.commands_per_second} a second, {limits.commands_burst} at once"
        raise HttpError(
            HTTPStatus.TOO_MANY_REQUESTS,
            ErrorCode.RATE_LIMITED,
            f"too many requests of this user or address; it may make {rate}",
            "send the request again later",
            {"Retry-After": str(math.ceil(delay))},
        )


def limit_command(scope: Mapping[str, Any], user: Any) -> None:
    """Count a command.

    Raises:
        HttpError: the client has sent too many.
    """
    _commands.reserve(_user_key(user) or f"address {source_of(scope).name}", 0.0)


def limit_request(
    scope: Mapping[str, Any], user: Any, max_delay: float = MAX_DELAY_SECONDS
) -> float:
    """Count a poll or a stream, and return the seconds to wait before serving it.

    A request is slowed down before it is refused, because a browser does not reopen an event stream
    that was refused.
    An address that several clients can share is not limited: behind a proxy that is not in
    ``TRUSTED_PROXIES``, all visitors of a site have the proxy's address.

    Raises:
        HttpError: the request would have to wait for more than ``max_delay`` seconds.
    """
    key = _user_key(user)
    if key is None:
        source = source_of(scope)
        if source.is_shared:
            return 0.0
        key = f"address {source.name}"
    return _requests.reserve(key, max_delay)


def _user_key(user: Any) -> str | None:
    return None if user is None or not user.is_authenticated else f"user {user.pk}"


def _now() -> float:
    return time.monotonic()


_commands = RateLimiter()
_requests = RateLimiter()
