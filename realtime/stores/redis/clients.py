"""How a store uses Redis: its LOCATION, its connections, and its errors.

No command is retried: an append whose answer was lost would be appended twice.
The pools check whether the server has closed a connection before they hand it out, so that no
call fails after a server was restarted.
A balancer or a firewall can forget an idle connection without closing it. TCP keep-alive prevents
that, and an idle connection is tried with a PING, and replaced, before a command uses it.

Two sites that are given one Redis by mistake would share their logs. So a fingerprint of the site
is kept in Redis, and compared before a process's first command and once a minute: a process can
outlive the data of its Redis.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.core.exceptions import ImproperlyConfigured
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import SSLConnection, parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoScriptError,
    RedisClusterException,
    RedisError,
)
from redis.retry import Retry

from realtime import conf
from realtime.exceptions import ForeignStore, StoreError, StoreUnavailable
from realtime.stores.redis.scripts import CLAIM, Script

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RedisAccess", "Target"]

Answer = list[Any]
_Loops: TypeAlias = "WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClient]"

CONNECTIONS = 16  # per event loop; the server runs one command at a time anyway
THREADS = 1_000  # threads that can use the store at the same time, with one connection each
CLAIM_SECONDS = 60.0  # between two comparisons of the site's fingerprint
MINIMUM = "6.2"  # the oldest Redis that the tests run on
MINIMUM_CLIENT = 8  # older versions of redis-py retry differently and raise less exact errors

# Codes of transient errors. An error that a script raises has the code inside its text.
_TRANSIENT = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)
# URL parameters that are not checked before the first connection: the files may not exist yet.
_SECRETS_AND_FILES = {
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
}
_TOO_OLD = re.compile(r"unknown command|unknown subcommand|syntax error", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """The checked address of a Redis server or cluster.

    Attributes:
        urls: one URL, or those of the cluster nodes from which the others are discovered.
        cluster: whether it is a Redis Cluster.
        timeout: seconds to connect, and to wait for each answer.
        keepalive: seconds for which a connection is idle before it is tried.
    """

    urls: tuple[str, ...]
    cluster: bool
    timeout: float
    keepalive: int

    @classmethod
    def of(cls, location: str, *, cluster: bool, timeout: float, keepalive: int) -> Target:
        """Check a LOCATION and return it as a target.

        Raises:
            ImproperlyConfigured: the LOCATION is not valid, or redis-py is too old. The text says
                why and contains no password.
        """
        if int(redis.__version__.partition(".")[0]) < MINIMUM_CLIENT:
            raise ImproperlyConfigured(
                f"RedisStore needs redis-py {MINIMUM_CLIENT} or newer, and {redis.__version__} is "
                "installed; run: pip install 'django-channels-realtime[redis]'"
            )
        urls = tuple(filter(None, map(str.strip, location.split(",")))) if cluster else (location,)
        for url in urls or ("",):
            reason = _wrong(url, cluster=cluster)
            if reason:
                example = "redis://127.0.0.1:6379" + ("" if cluster else "/0")
                raise ImproperlyConfigured(
                    f"RedisStore's LOCATION {reason}; give a URL, such as {example!r}"
                )
        return cls(urls, cluster, timeout, keepalive)

    @property
    def common(self) -> dict[str, Any]:
        """The options of every client, except its retries."""
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,  # RESP 3 has no advantage here, and its servers push messages
            **({} if self.urls[0].startswith("unix:") else self._tcp),
        }

    @property
    def _tcp(self) -> dict[str, Any]:
        values = {"TCP_KEEPIDLE": self.keepalive, "TCP_KEEPINTVL": self.keepalive, "TCP_KEEPCNT": 3}
        # Not every platform has all of them.
        known = {getattr(socket, name): n for name, n in values.items() if hasattr(socket, name)}
        return {"socket_keepalive": True, "socket_keepalive_options": known}

    def node(self) -> tuple[list[tuple[str, int]], dict[str, Any]]:
        """Return the addresses of a cluster's nodes, and the options of its clients."""
        parsed = [parse_url(url) for url in self.urls]
        options = dict(parsed[0])
        options.pop("db", None)
        if options.pop("connection_class", None) is SSLConnection:
            options["ssl"] = True
        options.pop("host", None)
        options.pop("port", None)
        addresses = [(str(url["host"]), int(url.get("port", 6379))) for url in parsed]
        return addresses, {**options, **self.common}

    def connect(self) -> Any:
        """Return a synchronous client."""
        retry = Retry(NoBackoff(), 0)  # redis-py's own retries would take 30 seconds
        if self.cluster:
            addresses, options = self.node()
            nodes = [ClusterNode(*address) for address in addresses]
            return redis.RedisCluster(
                startup_nodes=nodes, retry=retry, max_connections=THREADS, **options
            )
        client = redis.Redis.from_url(
            self.urls[0],
            retry=retry,
            max_connections=THREADS,
            health_check_interval=self.keepalive,
            **self.common,
        )
        _replace_forgotten(client.connection_pool, _Tried)
        return client

    def aconnect(self) -> Any:
        """Return an asynchronous client for the running loop."""
        retry = AsyncRetry(NoBackoff(), 0)
        if self.cluster:
            addresses, options = self.node()
            nodes = [AsyncClusterNode(*address) for address in addresses]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, retry=retry, **options)
        client = redis.asyncio.Redis.from_url(
            self.urls[0], retry=retry, health_check_interval=self.keepalive, **self.common
        )
        _replace_forgotten(client.connection_pool, _AsyncTried)
        return client


class _Tried:
    """A connection that is replaced, before the command, if it does not answer a PING."""

    def check_health(self: Any) -> None:
        try:
            super().check_health()  # type: ignore[misc]
        except (redis.ConnectionError, redis.TimeoutError):
            self.disconnect()
            self.connect_check_health(check_health=False)


class _AsyncTried:
    """The same for asyncio."""

    async def check_health(self: Any) -> None:
        try:
            await super().check_health()  # type: ignore[misc]
        except (redis.ConnectionError, redis.TimeoutError):
            await self.disconnect(nowait=True)
            await self.connect_check_health(check_health=False)


def _replace_forgotten(pool: Any, mixin: type) -> None:
    # redis-py chooses the class by the URL, so that it can be extended only here.
    pool.connection_class = type(mixin.__name__, (mixin, pool.connection_class), {})


def _wrong(url: str, *, cluster: bool) -> str | None:
    """Return why a URL is invalid, as the predicate of "LOCATION …"; None if it is valid."""
    if not url:
        return "is empty"
    schemes = ("redis", "rediss") if cluster else ("redis", "rediss", "unix")
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        return "does not begin with " + " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts, parsed = urlsplit(url), parse_url(url)
    except ValueError as error:
        unreadable = re.match(r"Invalid value for '\w+'", str(error))
        if unreadable:
            return f"has an {unreadable[0].lower()}"
        # The error's text can contain a part of the password.
        return "cannot be read (percent-encode special characters in a password)"
    if parts.scheme == "unix":
        if not parsed.get("path"):
            return "names no socket"
    elif not parsed.get("host"):
        return "names no host"
    elif parts.path.strip("/") and "db" not in parsed:
        return f"has the path {parts.path!r}, which is not the number of a database"
    if parsed.get("db", 0) < 0:
        return f"names the database {parsed['db']}, and they count from 0"
    if cluster and parsed.get("db"):
        return "names a database other than 0, which a cluster does not have"
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - {"db"}
    return _wrong_tls(names, parsed, tls=parts.scheme == "rediss", cluster=cluster)


def _wrong_tls(
    names: Collection[str], parsed: Mapping[str, Any], *, tls: bool, cluster: bool
) -> str | None:
    """Return why the parameters of a URL, except db, are invalid; see ``_wrong()``."""
    # The synchronous clients accept every parameter that the asynchronous ones accept.
    client = redis.asyncio.RedisCluster if cluster else AsyncSSLConnection
    known = {name for name in inspect.signature(client).parameters if name.startswith("ssl_")}
    for name in sorted(names):
        if name not in known:
            listed = ", ".join(["db", *sorted(known)])
            return f"has the parameter {name!r}; known are {listed}"
        if not tls:
            return f"has the parameter {name!r}, which needs TLS and so the scheme rediss"
        if name not in parsed:
            return f"has the parameter {name!r} without a value"
    values = {name: parsed[name] for name in names if name not in _SECRETS_AND_FILES}
    try:
        if values:
            AsyncSSLConnection(**values).ssl_context.get()
    except (RedisError, ValueError, TypeError, OSError) as error:
        return f"has TLS parameters that cannot be used ({error})"
    return None


class RedisAccess:
    """Runs a store's commands, from any thread and any event loop, also after a fork.

    Threads share one connection pool. Each event loop has its own connections, which are closed
    with it.

    Args:
        target: the address.
        store: the name of the store's class, for error texts.
        site_key: the key that holds the fingerprints of the site.
    """

    def __init__(self, target: Target, store: str, site_key: str) -> None:
        self.target = target
        self.store = store
        self.site_key = site_key
        # By process id: a forked child must not use its parent's client.
        self._clients: dict[int, Any] = {}
        self._loops: _Loops = WeakKeyDictionary()
        self._is_ours = False  # whether the last comparison of fingerprints succeeded
        self._next_claim = 0.0  # when they are compared next, by time.monotonic()

    # Commands. Each of them raises
    #   StoreUnavailable: Redis cannot be reached, does not answer in time, or refuses for now.
    #   ForeignStore: Redis holds the logs of another site.
    #   StoreError: Redis refuses the command for good.

    def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Run a script and return its answer."""
        with self._ready() as client:
            return _evaluate(client, script, keys, *args)

    async def arun(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Async version of ``run()``."""
        async with self._aready() as client:
            return await _aevaluate(client, script, keys, *args)

    def mget(self, groups: Sequence[Sequence[str]]) -> list[Answer]:
        """Return the values of groups of keys; the keys of a group share a slot."""
        with self._ready() as client:
            if len(groups) == 1:
                return [client.execute_command("MGET", *groups[0])]
            pipeline = client.pipeline(transaction=False)
            for group in groups:
                pipeline.execute_command("MGET", *group)
            return list(pipeline.execute())

    async def amget(self, groups: Sequence[Sequence[str]]) -> list[Answer]:
        """Async version of ``mget()``."""
        async with self._aready() as client:
            if len(groups) == 1:
                return [await client.execute_command("MGET", *groups[0])]
            pipeline = client.pipeline(transaction=False)
            for group in groups:
                pipeline.execute_command("MGET", *group)
            return list(await pipeline.execute())

    def scan_set(self, key: str, scan_cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Return the next scan cursor of a set (0 at its end), and some of its members."""
        with self._ready() as client:
            answer = client.execute_command("SSCAN", key, scan_cursor, "COUNT", count)
            return int(answer[0]), list(answer[1])

    def close(self) -> None:
        """Close the connections; the next call opens new ones.

        The connections of a running event loop are closed in that loop. A loop that has ended has
        already closed its connections.
        """
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()
        for loop, loop_client in list(self._loops.items()):
            if loop.is_running():
                self._loops.pop(loop, None)
                loop.call_soon_threadsafe(loop_client.close_soon)

    # Clients

    def _client(self) -> Any:
        pid = os.getpid()
        client = self._clients.get(pid)
        if client is None:
            client = self.target.connect()
            # If two threads make a client at the same time, the second client is dropped unused.
            client = self._clients.setdefault(pid, client)
        return client

    def _loop_client(self) -> _LoopClient:
        loop = asyncio.get_running_loop()
        client = self._loops.get(loop)
        if client is None:
            # A weak key does not free a client, because the client's sockets hold their loop. So
            # remove the clients of loops that were closed without shutdown_asyncgens().
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            client = self._loops[loop] = _LoopClient(self.target.aconnect(), self._loops)
        return client

    @contextmanager
    def _ready(self) -> Iterator[Any]:
        """Yield a client of a Redis that holds this site's logs, and translate its errors."""
        with self._errors():
            client = self._client()
            if self._claim_is_due():
                with self._patience():
                    self._take_claim(_evaluate(client, CLAIM, [self.site_key], *_fingerprints()))
            yield client

    @asynccontextmanager
    async def _aready(self) -> AsyncIterator[Any]:
        """Async version of ``_ready()``."""
        with self._errors():
            async with self._loop_client() as client:
                if self._claim_is_due():
                    with self._patience():
                        claim = _aevaluate(client, CLAIM, [self.site_key], *_fingerprints())
                        self._take_claim(await claim)
                yield client

    # The site's fingerprint

    def _claim_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_claim:
            return False
        if self._is_ours:
            self._next_claim = now + CLAIM_SECONDS  # other callers do not wait for this one
        return True

    def _take_claim(self, is_ours: int) -> None:
        self._is_ours = bool(is_ours)
        if not is_ours:
            self._next_claim = 0.0
            raise ForeignStore(
                self.store,
                'this Redis holds the logs of another site; set OPTIONS["prefix"] in '
                'REALTIME["STORE"] to a prefix that no other site has. If it is this site and its '
                "SECRET_KEY was changed, put the previous one into SECRET_KEY_FALLBACKS, or delete "
                f"the key {self.site_key!r} in Redis",
            )
        self._next_claim = time.monotonic() + CLAIM_SECONDS

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Ignore errors if the fingerprint of a cluster was right before.

        It can be on a node that is away, while the other nodes answer.
        """
        try:
            yield
        except (RedisError, RedisClusterException, OSError):
            if not (self._is_ours and self.target.cluster):
                raise

    # Errors

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> StoreError:
        text = str(error) or type(error).__name__
        code = getattr(error, "status_code", None)
        if code and not text.startswith(code):
            text = f"{code} {text}"
        if code == "MOVED" and not self.target.cluster:
            return StoreError(
                f"{self.store} was given one node of a Redis Cluster ({text}); "
                'put "OPTIONS": {"cluster": True} into REALTIME["STORE"]'
            )
        if "Cluster mode is not enabled" in text or "cluster support disabled" in text:
            return StoreError(
                f"{self.store} expects a Redis Cluster and found a single server ({text}); "
                'leave "cluster" out of OPTIONS in REALTIME["STORE"]'
            )
        transient = (redis.ConnectionError, redis.TimeoutError, OSError, ClusterDownError)
        refused = isinstance(error, AuthenticationError | AuthorizationError)
        if not refused and (
            isinstance(error, (*transient, RedisClusterException)) or _TRANSIENT.search(text)
        ):
            return StoreUnavailable(self.store, text)
        if _TOO_OLD.search(text):
            text += f" (it needs Redis {MINIMUM} or newer)"
        return StoreError(f"{self.store} was refused by Redis: {text}")


def _fingerprints() -> list[str]:
    """Return the fingerprints of ``SECRET_KEY`` and of each of ``SECRET_KEY_FALLBACKS``."""
    salt = b"realtime.site"
    return [secret[:16].hex() for secret in (conf.secret(salt), *conf.earlier_secrets(salt))]


def _evaluate(client: Any, script: Script, keys: Sequence[str], *args: Any) -> Any:
    try:
        return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
    except NoScriptError:
        return client.execute_command("EVAL", script.text, len(keys), *keys, *args)


async def _aevaluate(client: Any, script: Script, keys: Sequence[str], *args: Any) -> Any:
    try:
        return await client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
    except NoScriptError:
        return await client.execute_command("EVAL", script.text, len(keys), *keys, *args)


class _LoopClient:
    """The client of one event loop, with a limit on concurrent calls.

    The client is closed with its loop. When a loop ends, asyncio finishes nothing but the
    asynchronous generators that were started, so a generator closes the client in its ``finally``.
    """

    def __init__(self, client: Any, loops: _Loops) -> None:
        self.client = client
        self.loops = loops
        self.slots = asyncio.Semaphore(CONNECTIONS)
        self.closer: AsyncGenerator[None, None] | None = None
        self.closing: asyncio.Task[None] | None = None  # so that it is not garbage-collected

    async def __aenter__(self) -> Any:
        if self.closer is None:
            self.closer = self._close_with_loop()
            await anext(self.closer)
        await self.slots.acquire()
        return self.client

    async def __aexit__(self, *error: object) -> None:
        self.slots.release()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            if self.loops.get(loop) is self:
                del self.loops[loop]
            await self.client.aclose()
            if isinstance(self.client, redis.asyncio.RedisCluster):
                # After a failure, aclose() of a cluster client closes no connection.
                await self.client.nodes_manager.aclose()
                await self.client.nodes_manager.aclose("startup_nodes")

    def close_soon(self) -> None:
        """Close the client; call this in its loop."""
        if self.closer is not None:
            self.closing = asyncio.get_running_loop().create_task(self.closer.aclose())
