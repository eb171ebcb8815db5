"""Measure the database channel layer: latency, the cost of a send, and the cost of idling.

    python -m benchmarks.layer                  # SQLite, in a temporary folder
    python -m benchmarks.layer postgres         # a throwaway PostgreSQL

Messages are sent one at a time, 20 to 120 ms apart.
"""

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from benchmarks.machine import exit_on_sigterm
from tests.support.databases import database_config
from tests.support.services import GET_POSTGRES, postgres_binaries, require, run_postgres

MESSAGES = 300
SENDS = 500
IDLE_SECONDS = 10


def configure(url: str) -> None:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": database_config(url)},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "realtime"],
        SECRET_KEY="benchmark",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


def show(what: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{what:<46} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   (n={len(ordered)})", flush=True)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def read() -> None:
    """Run the other process: a member that records the age of each message."""
    from realtime.layers.database import DatabaseChannelLayer

    layer = DatabaseChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("all", channel)
    print("ready", flush=True)
    before = cpu()
    await asyncio.sleep(IDLE_SECONDS)
    share = (cpu() - before) / IDLE_SECONDS
    print(f"{'a process that waits, in one group':<46} {share:.2%} of a core", flush=True)
    ages = []
    for _ in range(MESSAGES):
        message = await layer.receive(channel)
        ages.append(time.monotonic() - message["sent"])
    show("group_send to receive, between two processes", ages)
    await layer.close()


async def write(url: str) -> None:
    from realtime.layers.database import DatabaseChannelLayer

    layer = DatabaseChannelLayer()
    took = []
    for _ in range(SENDS):
        began = time.monotonic()
        await layer.group_send("nobody", {"type": "x"})
        took.append(time.monotonic() - began)
    show("group_send, no members elsewhere", took)

    channel = await layer.new_channel()
    await layer.group_add("local", channel)
    ages = []
    for _ in range(SENDS):
        waiting = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        sending = asyncio.create_task(layer.group_send("local", {"sent": time.monotonic()}))
        message = await waiting
        ages.append(time.monotonic() - message["sent"])
        await sending
    show("group_send to receive, in one process", ages)

    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.layer", "read", url, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"ready\n"
    print((await reader.stdout.readline()).decode(), end="", flush=True)
    took = []
    for _ in range(MESSAGES):
        began = time.monotonic()
        await layer.group_send("all", {"sent": began})
        took.append(time.monotonic() - began)
        await asyncio.sleep(random.uniform(0.02, 0.12))
    print((await reader.stdout.readline()).decode(), end="", flush=True)
    show("group_send, members in one other process", took)
    await reader.wait()
    await layer.close()


def main() -> None:
    exit_on_sigterm()
    match sys.argv[1:]:
        case ["read", url]:
            configure(url)
            asyncio.run(read())
            return
        case ["postgres"]:
            database = run_postgres(require(postgres_binaries(), GET_POSTGRES))
        case _:
            database = nullcontext(str(Path(tempfile.mkdtemp()) / "layer.sqlite3"))
    with database as url:
        configure(url)
        from django.core.management import call_command

        call_command("migrate", "realtime", verbosity=0)
        vendor = "postgres" if "://" in url else "sqlite"
        print(f"{vendor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        asyncio.run(write(url))


if __name__ == "__main__":
    main()
