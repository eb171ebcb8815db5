"""Rate limits of requests: polls, streams, WebSocket handshakes, and commands over HTTP.

A WebSocket limits its own commands, in ``Dialogue``.
A request counts for its user or, if nobody is signed in, for the address it came from.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from realtime import conf
from realtime.auth.addresses import source_of
from realtime.conf import Limits
from realtime.consumers.http import HttpError
from realtime.outage import Outage
from realtime.protocol.dialogue import Bucket
from realtime.protocol.frames import ErrorCode

__all__ = [
    "AnonymousLimiter",
    "RateLimiter",
    "limit_command",
    "limit_publish",
    "limit_request",
]

MAX_CLIENTS = 10_000  # users and addresses with a bucket; the least recently used bucket is dropped
# Longest delay of a request for a few topics; it is refused if it would take more. A request for
# many topics can take longer: see _reserve().
MAX_DELAY_SECONDS = 1.0
ANONYMOUS_BURST_SECONDS = 50  # of the rate of anonymous clients: 10,000 reconnect after a restart


class RateLimiter:
    """Token buckets by client, for the most recent ``MAX_CLIENTS`` clients; thread-safe.

    Args:
        rate_and_burst: returns tokens per second, and the capacity of a bucket in tokens.
        unit: what a token is, such as ``commands``.
    """

    def __init__(self, rate_and_burst: Callable[[Limits], tuple[int, int]], unit: str) -> None:
        self._rate_and_burst = rate_and_burst
        self._unit = unit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def reserve(self, client: str, amount: int = 1, *, can_wait: bool = False) -> float:
        """Reserve tokens of a client's bucket and return the seconds until they are available.

        Raises:
            HttpError: the client would have to wait too long, or at all if it cannot wait; nothing
                is reserved.
        """
        with self._lock:
            bucket = self._buckets.pop(client, None)
            if bucket is None:
                bucket = Bucket(*self._rate_and_burst(conf.get().limits))
            self._buckets[client] = bucket
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
            reason = (
                f"too many {self._unit} of this user or address; "
                f"it may send {bucket.rate} a second, {bucket.burst} at once"
            )
            return _reserve(bucket, amount, can_wait, reason)


class AnonymousLimiter:
    """One bucket for all clients that are not signed in and cannot be told apart; thread-safe.

    Without it, such clients could use the whole process. It is generous, because behind a proxy
    that is not in ``TRUSTED_PROXIES`` these are all visitors of a site that are not signed in.
    """

    def __init__(self) -> None:
        self._bucket: Bucket | None = None
        self._lock = threading.Lock()
        self._outage = Outage(
            "clients that are not signed in are refused: %s; behind a proxy, list it in "
            'REALTIME["TRUSTED_PROXIES"] and let it send X-Forwarded-For, so that each client has '
            "a limit of its own",
            "clients that are not signed in are served again",
            expected=HttpError,
        )

    def reserve(self, amount: int, *, can_wait: bool) -> float:
        """Reserve tokens and return the seconds until they are available.

        Raises:
            HttpError: the client would have to wait too long, or at all if it cannot wait; nothing
                is reserved.
        """
        rate = conf.get().limits.anonymous_requests_per_second
        with self._lock:
            if self._bucket is None or self._bucket.rate != rate:
                self._bucket = Bucket(rate, rate * ANONYMOUS_BURST_SECONDS)
            reason = (
                "too many requests of clients that are not signed in and cannot be told apart; "
                f"this process serves {rate} a second, {rate * ANONYMOUS_BURST_SECONDS} at once"
            )
            try:
                delay = _reserve(self._bucket, amount, can_wait, reason)
            except HttpError as error:
                self._outage.failed(error)
                raise
            # Half full: a client that sends at the limit must not begin and end an outage with
            # every request.
            if self._bucket.level >= self._bucket.burst / 2:
                self._outage.over()
            return delay


def _reserve(bucket: Bucket, amount: int, can_wait: bool, reason: str) -> float:
    """Reserve tokens and return the seconds until they are available.

    A client that can wait is not refused if only its own tokens take long. So a client that sends
    one request after another is slowed to the rate and never refused.

    Raises:
        HttpError: the wait would be too long; nothing is reserved.
    """
    own = min(amount, bucket.burst) / bucket.rate
    patience = max(MAX_DELAY_SECONDS, own) if can_wait else 0.0
    delay = bucket.reserve(_now(), patience, amount)
    if delay <= patience:
        return delay
    raise HttpError(
        HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.RATE_LIMITED,
        reason,
        "send the request again later",
        {"Retry-After": str(math.ceil(delay))},
    )


def limit_command(scope: Mapping[str, Any], user: Any) -> None:
    """Count a command.

    Raises:
        HttpError: the client has sent too many.
    """
    _commands.reserve(_key(scope, user))


def limit_publish(scope: Mapping[str, Any], user: Any, size: int) -> None:
    """Count the bytes of a publish.

    Raises:
        HttpError: the client has published too many.
    """
    _published.reserve(_key(scope, user), size)


def limit_request(
    scope: Mapping[str, Any], user: Any, topics: int = 1, *, can_wait: bool = True
) -> float:
    """Count a poll, a stream or a handshake, and return the seconds to wait before serving it.

    It counts once for each of its topics, and once if it has none.
    A request is slowed down before it is refused, because a browser does not reopen an event stream
    that was refused.
    The clients of an address that several clients can share, such as that of a proxy that is not in
    ``TRUSTED_PROXIES``, have one limit together with all other such clients.

    Raises:
        HttpError: the request would have to wait too long, or at all if it cannot wait.
    """
    amount = max(1, topics)
    if _user_key(user) is None and source_of(scope).is_shared:
        return _anonymous.reserve(amount, can_wait=can_wait)
    return _requests.reserve(_key(scope, user), amount, can_wait=can_wait)


def _key(scope: Mapping[str, Any], user: Any) -> str:
    return _user_key(user) or f"address {source_of(scope).name}"


def _user_key(user: Any) -> str | None:
    return None if user is None or not user.is_authenticated else f"user {user.pk}"


def _now() -> float:
    return time.monotonic()


def _command_rate(limits: Limits) -> tuple[int, int]:
    return limits.commands_per_second, limits.commands_burst


def _publish_rate(limits: Limits) -> tuple[int, int]:
    return limits.publish_bytes_per_second, limits.publish_bytes_burst


_commands = RateLimiter(_command_rate, "commands")
_requests = RateLimiter(_command_rate, "requests or topics")
_published = RateLimiter(_publish_rate, "published bytes")
_anonymous = AnonymousLimiter()
