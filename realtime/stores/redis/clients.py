"""How a store uses Redis: where it is, over which connections, and what an error means.

Nothing is repeated here: an append whose answer was lost would be there twice.
The pools notice a connection that the server has closed before they give it out, so that a
server that was restarted costs no call.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import contextmanager
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

from realtime.exceptions import StoreError, StoreUnavailable
from realtime.stores.redis.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RedisAccess", "Target"]

Answer = list[Any]
_Loops: TypeAlias = "WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClient]"

CONNECTIONS = 16  # of one event loop; the server runs one command at a time anyway
THREADS = 1_000  # that use the store at the same moment, each over a connection
MINIMUM = "6.2"  # the oldest Redis that the tests run on
MINIMUM_CLIENT = 8  # redis-py before that retries by other rules, and tells less of an error

# Codes of answers that another moment may change; a script's error has them inside its text.
_PASSING = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)
# Parameters of a URL that only connecting can prove: the files may come later than this process.
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
    """A checked place of a Redis server, or of a cluster.

    Attributes:
        urls: one, or the nodes of a cluster that are asked for the others.
        cluster: whether it is a Redis Cluster.
        timeout: seconds to connect, and for each answer.
    """

    urls: tuple[str, ...]
    cluster: bool
    timeout: float

    @classmethod
    def of(cls, location: str, *, cluster: bool, timeout: float) -> Target:
        """Check a LOCATION.

        Raises:
            ImproperlyConfigured: it cannot be one; the text says why, without a password. Or the
                Python package is too old.
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
        return cls(urls, cluster, timeout)

    @property
    def common(self) -> dict[str, Any]:
        """What all clients are given; redis-py's own defaults would retry for half a minute."""
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,  # the third has nothing that is used here, and pushes what is not asked
        }

    def node(self) -> tuple[list[tuple[str, int]], dict[str, Any]]:
        """Return the addresses of a cluster, and what its clients are given."""
        parsed = [parse_url(url) for url in self.urls]
        options = dict(parsed[0])
        options.pop("db", None)
        if options.pop("connection_class", None) is SSLConnection:
            options["ssl"] = True
        options.pop("host", None)
        options.pop("port", None)
        addresses = [(str(one["host"]), int(one.get("port", 6379))) for one in parsed]
        return addresses, {**options, **self.common}

    def connect(self) -> Any:
        """Return a synchronous client."""
        retry = Retry(NoBackoff(), 0)
        if self.cluster:
            addresses, options = self.node()
            nodes = [ClusterNode(*address) for address in addresses]
            return redis.RedisCluster(
                startup_nodes=nodes, retry=retry, max_connections=THREADS, **options
            )
        return redis.Redis.from_url(
            self.urls[0], retry=retry, max_connections=THREADS, **self.common
        )

    def aconnect(self) -> Any:
        """Return a client for the running loop."""
        retry = AsyncRetry(NoBackoff(), 0)
        if self.cluster:
            addresses, options = self.node()
            nodes = [AsyncClusterNode(*address) for address in addresses]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, retry=retry, **options)
        return redis.asyncio.Redis.from_url(self.urls[0], retry=retry, **self.common)


def _wrong(url: str, *, cluster: bool) -> str | None:
    """Return what is wrong with a URL, as a clause."""
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
        # Its text may have a piece of the password.
        return "cannot be read (percent-encode what is special in a password)"
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
        return "names a database, of which a cluster has only the first"
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - {"db"}
    return _wrong_tls(names, parsed, tls=parts.scheme == "rediss", cluster=cluster)


def _wrong_tls(
    names: Collection[str], parsed: Mapping[str, Any], *, tls: bool, cluster: bool
) -> str | None:
    """Return what is wrong with the parameters of a URL other than db, as a clause."""
    # Those that redis-py's asynchronous clients take; the synchronous ones take them too.
    takes = redis.asyncio.RedisCluster if cluster else AsyncSSLConnection
    known = {name for name in inspect.signature(takes).parameters if name.startswith("ssl_")}
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
    """Runs a store's scripts, from any thread and any event loop, also after a fork.

    Threads share the connections of one pool; each event loop has connections of its own, which
    close with it.
    """

    def __init__(self, target: Target, store: str) -> None:
        self.target = target
        self.store = store
        self._clients: dict[int, Any] = {}  # by process: a forked child never uses its parent's
        self._loops: _Loops = WeakKeyDictionary()

    # Commands; each raises
    #   StoreUnavailable: Redis cannot be reached, does not answer in time, or cannot do it now.
    #   StoreError: it refuses for good.

    def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Run a script and return its answer."""
        with self._errors():
            client = self._client()
            try:
                return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    async def arun(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Async version of ``run()``."""
        with self._errors():
            async with self._loop_client() as client:
                try:
                    return await client.execute_command(
                        "EVALSHA", script.sha, len(keys), *keys, *args
                    )
                except NoScriptError:
                    return await client.execute_command(
                        "EVAL", script.text, len(keys), *keys, *args
                    )

    def mget(self, groups: Sequence[Sequence[str]]) -> list[Answer]:
        """Return the values of groups of keys, each group in one slot."""
        with self._errors():
            client = self._client()
            if len(groups) == 1:
                return [client.execute_command("MGET", *groups[0])]
            pipeline = client.pipeline(transaction=False)
            for group in groups:
                pipeline.execute_command("MGET", *group)
            return list(pipeline.execute())

    async def amget(self, groups: Sequence[Sequence[str]]) -> list[Answer]:
        """Async version of ``mget()``."""
        with self._errors():
            async with self._loop_client() as client:
                if len(groups) == 1:
                    return [await client.execute_command("MGET", *groups[0])]
                pipeline = client.pipeline(transaction=False)
                for group in groups:
                    pipeline.execute_command("MGET", *group)
                return list(await pipeline.execute())

    def scan_set(self, key: str, position: int, count: int) -> tuple[int, list[bytes]]:
        """Return where to go on in a set (0 at its end), and some of its members."""
        with self._errors():
            answer = self._client().execute_command("SSCAN", key, position, "COUNT", count)
            return int(answer[0]), list(answer[1])

    def close(self) -> None:
        """Close the connections; the next call opens others.

        Those of an event loop that runs are closed there; one that has stopped has closed them.
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
            # Of two threads that come first at once, the later one's is dropped unused.
            client = self._clients.setdefault(pid, client)
        return client

    def _loop_client(self) -> _LoopClient:
        loop = asyncio.get_running_loop()
        client = self._loops.get(loop)
        if client is None:
            # Its weak key does not free a client: the client's own sockets hold their loop. A loop
            # that was closed without shutdown_asyncgens() has left its client here.
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            client = self._loops[loop] = _LoopClient(self.target.aconnect(), self._loops)
        return client

    # Errors

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> StoreError:
        text = str(error) or type(error).__name__
        code = getattr(error, "status_code", None)
        if code and not text.startswith(code):
            text = f"{code} {text}"
        if code == "MOVED" and not self.target.cluster:
            return StoreError(
                f"{self.store} was given one node of a Redis Cluster ({text}); "
                'put OPTIONS: {"cluster": True} into REALTIME["STORE"]'
            )
        if "Cluster mode is not enabled" in text or "cluster support disabled" in text:
            return StoreError(
                f"{self.store} was told of a Redis Cluster and found a server ({text}); "
                'leave "cluster" out of OPTIONS in REALTIME["STORE"]'
            )
        for_now = (redis.ConnectionError, redis.TimeoutError, OSError, ClusterDownError)
        refused = isinstance(error, AuthenticationError | AuthorizationError)
        if not refused and (
            isinstance(error, (*for_now, RedisClusterException)) or _PASSING.search(text)
        ):
            return StoreUnavailable(self.store, text)
        if _TOO_OLD.search(text):
            text += f" (it needs Redis {MINIMUM} or newer)"
        return StoreError(f"{self.store} was refused by Redis: {text}")


class _LoopClient:
    """The client of one event loop, and how many of its callers use it at once.

    It is closed when the loop ends: an asynchronous generator that is under way is the one thing
    that asyncio ends with a loop.
    """

    def __init__(self, client: Any, loops: _Loops) -> None:
        self.client = client
        self.loops = loops
        self.slots = asyncio.Semaphore(CONNECTIONS)
        self.life: AsyncGenerator[None, None] | None = None
        self.closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Any:
        if self.life is None:
            self.life = self._live()
            await anext(self.life)
        await self.slots.acquire()
        return self.client

    async def __aexit__(self, *error: object) -> None:
        self.slots.release()

    async def _live(self) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            if self.loops.get(loop) is self:
                del self.loops[loop]
            await self.client.aclose()
            if isinstance(self.client, redis.asyncio.RedisCluster):
                # After a failure it means to connect anew, and closes nothing of what it has.
                await self.client.nodes_manager.aclose()
                await self.client.nodes_manager.aclose("startup_nodes")

    def close_soon(self) -> None:
        """Close on the loop, whose turn it is."""
        if self.life is not None:
            self.closing = asyncio.get_running_loop().create_task(self.life.aclose())
