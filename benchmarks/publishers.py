"""Processes that publish, so that the measured server does not have to.

    python -m benchmarks.publishers realtime TOPIC | channels | http PORT PATH

They read commands from stdin: ``one NUMBER COUNT SIZE`` publishes events one after the other,
``many NUMBER COUNT SIZE`` publishes them together if possible; they answer each with ``done``.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from benchmarks.machine import CLIENT_CORE, started

SIZE = 150  # bytes of JSON per event
GROUP = "fanout"
DELIVERY_TIMEOUT_SECONDS = 120.0  # for one event to reach all clients

Send = Callable[[list[dict[str, Any]]], None]


def event_data(number: int, size: int = SIZE) -> dict[str, Any]:
    """Return event data of ``size`` bytes with the current time, to measure the latency."""
    data: dict[str, Any] = {"at": 0.0, "n": number, "filler": ""}
    data["at"] = round(time.time(), 6)
    text = json.dumps(data, separators=(",", ":"))
    return data | {"filler": "x" * (size - len(text))}


class PublishFailed(Exception):
    """The publisher failed; its own error is on stderr."""


class Publisher:
    """A publisher in a separate process.

    Attributes:
        number: the number of the next event.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.number = 0
        self._process = process
        self._answered()

    def __call__(self, count: int = 1, *, at_once: bool = False, size: int = SIZE) -> None:
        """Publish ``count`` events, and return when that is done."""
        assert self._process.stdin is not None
        way = "many" if at_once else "one"
        self._process.stdin.write(f"{way} {self.number} {count} {size}\n")
        self._process.stdin.flush()
        self.number += count
        self._answered()

    def _answered(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            raise PublishFailed("the publisher failed; its error is on stderr")


@contextmanager
def publisher(arguments: Sequence[str], env: Mapping[str, str]) -> Iterator[Publisher]:
    """Run a publisher until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.publishers", *arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with started(command, CLIENT_CORE, env, **pipes) as process:
        yield Publisher(process)


def _realtime(topic: str) -> tuple[Send, Send]:
    import_module("benchmarks.site")  # it configures Django
    from realtime import publish, publish_many

    def one(items: list[dict[str, Any]]) -> None:
        publish(topic, "tick", items[0])

    def many(items: list[dict[str, Any]]) -> None:
        publish_many([(topic, "tick", item) for item in items])

    return one, many


def _channels() -> tuple[Send, Send]:
    """Use plain Channels on one event loop; ``async_to_sync`` would reconnect for each call."""
    import_module("benchmarks.site")  # it configures Django
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    loop = asyncio.new_event_loop()

    async def send(items: list[dict[str, Any]]) -> None:
        for item in items:
            await layer.group_send(GROUP, {"type": "deliver", "data": item})

    def run(items: list[dict[str, Any]]) -> None:
        loop.run_until_complete(send(items))

    return run, run


def _http(port: str, path: str) -> tuple[Send, Send]:
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(port), timeout=DELIVERY_TIMEOUT_SECONDS
    )

    def post(body: str) -> int:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def run(items: list[dict[str, Any]]) -> None:
        for item in items:
            body = json.dumps(item, separators=(",", ":"))
            try:
                status = post(body)
            except (ConnectionError, http.client.HTTPException):
                connection.close()  # servers close connections that were idle for a minute
                status = post(body)
            if status >= 400:
                sys.exit(f"{path} answered {status}")

    return run, run


def main() -> None:
    match sys.argv[1:]:
        case ["realtime", topic]:
            one, many = _realtime(topic)
        case ["channels"]:
            one, many = _channels()
        case ["http", port, path]:
            one, many = _http(port, path)
        case _:
            sys.exit(__doc__)
    print("done", flush=True)
    for line in sys.stdin:
        way, *numbers = line.split()
        first, count, size = map(int, numbers)
        if way == "many":
            many([event_data(number, size) for number in range(first, first + count)])
        else:
            for number in range(first, first + count):
                one([event_data(number, size)])
        print("done", flush=True)


if __name__ == "__main__":
    main()
