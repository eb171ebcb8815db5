"""The engines on which several processes or machines share one log."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"


@dataclass(frozen=True)
class Engine:
    """The store, the layer and the database that all nodes of a site share.

    Attributes:
        name: for the test's id.
        database: a URL; None for SQLite.
        settings: Django settings in addition to those of the tests.
    """

    name: str
    database: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def server(self, folder: Path, **options: Any) -> Server:
        """Return a server on this engine, not started."""
        return Server(folder, database=self.database, settings=self.settings, **options)

    @contextmanager
    def servers(self, folder: Path, count: int, **options: Any) -> Iterator[list[Server]]:
        """Run several servers on this engine."""
        with ExitStack() as stack:
            servers = [self.server(folder, **options) for _ in range(count)]
            stack.enter_context(servers[0])  # migrates the database
            for server in servers[1:]:
                stack.callback(server.stop)
                server.start()
            yield servers


def on_redis(url: str) -> Engine:
    """Return the engine with the store and the layer in Redis."""
    store = {"BACKEND": "realtime.stores.redis.RedisStore", "LOCATION": url}
    layers = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [url]}}}
    return Engine("redis", None, {"REALTIME": {"STORE": store}, "CHANNEL_LAYERS": layers})


@pytest.fixture(params=["redis", "postgres", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Redis, PostgreSQL alone, or a SQLite file, without data."""
    if request.param == "redis":
        return on_redis(request.getfixturevalue("redis_server").url)
    if request.param == "postgres":
        return Engine("postgres", request.getfixturevalue("postgres_database"))
    return Engine("sqlite")
