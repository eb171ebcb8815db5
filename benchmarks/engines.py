"""The engines on which the benchmarks run, each started when its turn comes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import exit_on_sigterm
from tests.support.redis import RedisServer, redis_binary
from tests.support.services import postgres_binaries, run_postgres

MIGRATE = """
import benchmarks.site
from django.core.management import call_command
call_command("migrate", verbosity=0)
"""


@dataclass(frozen=True)
class Engine:
    """Where a site keeps its logs.

    Attributes:
        name: shown in the output.
        env: environment of the processes that import ``benchmarks.site``.
        is_shared: whether several processes can use it.
        has_channels_layer: whether the channel layer is one of Channels' own, so that plain
            Channels can be measured too.
    """

    name: str
    env: Mapping[str, str]
    is_shared: bool = True
    has_channels_layer: bool = False


def engines() -> Iterator[Engine]:
    """Yield memory and SQLite, then PostgreSQL and Redis if installed; print what is missing."""
    exit_on_sigterm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sqlite = {"BENCHMARK_DB": str(folder / "bench.sqlite3")}
        memory = _env(**sqlite, BENCHMARK_MEMORY="1")
        yield Engine("memory", memory, is_shared=False, has_channels_layer=True)
        yield Engine("SQLite", _env(**sqlite))
        if (binaries := postgres_binaries()) is None:
            print("PostgreSQL: not installed")
        else:
            with run_postgres(binaries) as url:
                yield Engine("PostgreSQL", _env(BENCHMARK_DB=url))
        if (binary := redis_binary()) is None:
            print("Redis: not installed")
            return
        with RedisServer(binary, folder) as server:
            env = _env(**sqlite, BENCHMARK_REDIS=server.url)
            yield Engine("Redis", env, has_channels_layer=True)


def _env(**variables: str) -> Mapping[str, str]:
    env = os.environ | variables
    subprocess.run([sys.executable, "-c", MIGRATE], env=env, check=True)
    return env
