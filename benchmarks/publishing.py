"""How many events a process publishes that serves nobody.

    python -m benchmarks.publishing         # SQLite, and PostgreSQL and Redis where there are such

One after the other with publish(), each announced before it returns, and at once with
publish_many().
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.latency import MIGRATE
from tests.support.redis import RedisServer, redis_binary
from tests.support.services import postgres_binaries, postgres_server

SINGLE, MANY, ROUNDS = 2_000, 10_000, 3

PUBLISH = f"""
import time
from benchmarks.site import BenchTopic
from realtime import publish, publish_many

topic = BenchTopic(name="publishing")
data = {{"eta": "2026-11-24", "filler": "x" * 100}}
publish(topic, "warm", data)
single, many = [], []
for _ in range({ROUNDS}):
    begin = time.perf_counter()
    for _ in range({SINGLE}):
        publish(topic, "tick", data)
    single.append({SINGLE} / (time.perf_counter() - begin))
    begin = time.perf_counter()
    publish_many([(topic, "tick", data)] * {MANY})
    many.append({MANY} / (time.perf_counter() - begin))
print(f"publish() {{max(single):7,.0f}}/s   publish_many() {{max(many):7,.0f}}/s")
"""


def run(what: str, url: str, redis: str = "") -> None:
    env = os.environ | {"BENCHMARK_DB": url, "BENCHMARK_REDIS": redis}
    subprocess.run([sys.executable, "-c", MIGRATE], env=env, check=True)
    print(f"{what:<12}", end="", flush=True)
    subprocess.run([sys.executable, "-c", PUBLISH], env=env, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run("SQLite", str(Path(folder) / "bench.sqlite3"))
    if (binaries := postgres_binaries()) is not None:
        with postgres_server(binaries) as url:
            run("PostgreSQL", url)
    if (binary := redis_binary()) is not None:
        with tempfile.TemporaryDirectory() as folder, RedisServer(binary, Path(folder)) as server:
            run("Redis", str(Path(folder) / "bench.sqlite3"), server.url)


if __name__ == "__main__":
    main()
