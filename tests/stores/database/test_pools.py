"""Databases whose connections come from a pool: `OPTIONS["pool"]`.

Covers pool_checks.py.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import connections, transaction

from realtime import outbox
from realtime.exceptions import StoreUnavailable
from realtime.protocol.events import Draft
from realtime.stores.database import DatabaseStore
from realtime.threads import STORE_THREADS
from tests.stores.conftest import AddDatabase
from tests.support.databases import database_config
from tests.support.http import http_client
from tests.support.server import Server, connect

SIZE = 4  # of the pool, if the settings name no size


@pytest.fixture
def pooled_alias(
    add_database: AddDatabase, postgres_alias: str, postgres_dsn: str
) -> Iterator[str]:
    """A migrated PostgreSQL with a pool of two connections."""
    entry = database_config(postgres_dsn)
    entry["OPTIONS"]["pool"] = {"min_size": 2, "max_size": 2, "timeout": 0.5}
    alias = add_database(entry)
    yield alias
    connections[alias].close()
    cast("Any", connections[alias]).close_pool()


def free(alias: str) -> int:
    pool = cast("Any", connections[alias]).pool
    free: int = pool.get_stats()["pool_available"]
    return free


def test_the_threads_return_their_connections_after_each_operation(pooled_alias: str) -> None:
    store = DatabaseStore(options={"using": pooled_alias})

    def use_a_connection(barrier: threading.Barrier) -> None:
        barrier.wait(10)  # so that each thread runs one of these
        store.append("pooled", [Draft("x", "1")])

    barrier = threading.Barrier(STORE_THREADS.count)
    wait([STORE_THREADS.submit(use_a_connection, barrier) for _ in range(STORE_THREADS.count)])
    with transaction.atomic(using=pooled_alias):
        outbox.put(pooled_alias, [("public.pooled", Draft("x", "1"))])
        assert store.heads(["pooled"])["pooled"].seq == STORE_THREADS.count
    outbox._relays.start(pooled_alias, "public.pooled").result(10)
    connections[pooled_alias].close()
    assert free(pooled_alias) == 2
    store.delete("pooled")


def test_a_pool_without_a_free_connection_is_unavailable(pooled_alias: str) -> None:
    store = DatabaseStore(options={"using": pooled_alias})
    pool = cast("Any", connections[pooled_alias]).pool
    with transaction.atomic(using=pooled_alias), pool.connection():
        with pytest.raises(StoreUnavailable, match="couldn't get a connection"):
            store.heads(["pooled"])
        assert pool.get_stats()["requests_errors"] == 1  # it did not wait twice
    assert store.heads(["pooled"])["pooled"].seq == 0


async def test_a_server_with_the_smallest_pool_serves_many_clients(
    postgres_database: str, tmp_path: Path
) -> None:
    entry = database_config(postgres_database)
    entry["OPTIONS"]["pool"] = True
    other = database_config(str(tmp_path / "other.sqlite3"))
    settings = {"DATABASES": {"default": entry, "other": other}}
    with Server(tmp_path, settings=settings) as server:
        cookie = server.sign_in()
        async with AsyncExitStack() as stack:
            clients = await asyncio.gather(
                *(
                    stack.enter_async_context(connect(server, additional_headers=cookie))
                    for _ in range(20)
                )
            )
            await asyncio.gather(*(client.subscribe("public.news") for client in clients))
            http = await stack.enter_async_context(http_client())
            for _ in range(2):
                await asyncio.gather(
                    *(http.get(f"{server.site}/publish/atomic/") for _ in range(SIZE - 1))
                )
            for client in clients:
                await client.events(2 * (SIZE - 1))
        assert "couldn't get a connection" not in server.log.read_text()
