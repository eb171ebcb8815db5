"""How many events per second a process without clients publishes.

    python -m benchmarks.publishing         # every installed engine

Events are published one after the other with publish() and with apublish(), each broadcast before
the call returns, and at once with publish_many().
For comparison, plain Channels calls ``group_send()``, if the engine has one of Channels' own
layers: from synchronous code, as its documentation says, and from a coroutine.
Plain Channels stores nothing.
"""

import subprocess
import sys

from benchmarks.engines import Engine, engines
from benchmarks.report import Report, options

SINGLE, MANY, ROUNDS = 2_000, 10_000, 3

PUBLISH = f"""
import asyncio, sys, time
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from benchmarks.site import BenchTopic
from realtime import apublish, publish, publish_many

topic = BenchTopic(name="publishing")
data = {{"eta": "2026-11-24", "filler": "x" * 100}}

def single():
    for _ in range({SINGLE}):
        publish(topic, "tick", data)

def asynchronous():
    async def run():
        for _ in range({SINGLE}):
            await apublish(topic, "tick", data)
    asyncio.run(run())

def many():
    publish_many([(topic, "tick", data)] * {MANY})

def plain():
    layer = get_channel_layer()
    for _ in range({SINGLE // 4}):
        async_to_sync(layer.group_send)("plain", {{"type": "deliver", "data": data}})

def plain_asynchronous():
    async def run():
        layer = get_channel_layer()
        for _ in range({SINGLE}):
            await layer.group_send("plain", {{"type": "deliver", "data": data}})
        if hasattr(layer, "close_pools"):
            await layer.close_pools()
    asyncio.run(run())

ways = {{"publish()": (single, {SINGLE}), "apublish()": (asynchronous, {SINGLE}),
        "publish_many()": (many, {MANY})}}
if sys.argv[1] == "True":
    ways["group_send()"] = (plain, {SINGLE // 4})
    ways["group_send() in a coroutine"] = (plain_asynchronous, {SINGLE})
publish(topic, "warm", data)
for name, (run, count) in ways.items():
    best = 0.0
    for _ in range({ROUNDS}):
        begin = time.perf_counter()
        run()
        best = max(best, count / (time.perf_counter() - begin))
    print(f"   {{name:<28}} {{best:8,.0f}}/s", flush=True)
"""


OURS, PLAIN = "realtime on Daphne", "plain Channels, Redis pub/sub"
SYNCHRONOUS = "events published per second, one after the other"
ROWS = {  # of the table, for Redis; other engines are only printed
    "publish()": (SYNCHRONOUS, OURS),
    "apublish()": (f"{SYNCHRONOUS}, in a coroutine", OURS),
    "publish_many()": ("events published per second, at once", OURS),
    "group_send()": (SYNCHRONOUS, PLAIN),
    "group_send() in a coroutine": (f"{SYNCHRONOUS}, in a coroutine", PLAIN),
}


def run(engine: Engine, report: Report) -> None:
    """Measure one engine; the figures of Redis go into the table."""
    print(engine.name, flush=True)
    command = [sys.executable, "-c", PUBLISH, str(engine.has_channels_layer)]
    done = subprocess.run(command, env=engine.env, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        way, _, rate = line.strip().rpartition(" ")
        if engine.name == "Redis":
            value = float(rate.removesuffix("/s").replace(",", ""))
            report.figure(*ROWS[way.strip()], rate, rate=value)
        else:
            print(line, flush=True)


def main() -> None:
    chosen = options("publishing")
    report = Report("publishing")
    print(f"best of {ROUNDS} rounds")
    for engine in engines():
        run(engine, report)
    report.save(chosen.json)


if __name__ == "__main__":
    main()
