"""A process with a channel layer, in the group "all"; and the test's handle on it.

It does what the lines that it reads tell it, and writes a line for everything that happens.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from tests.support.waiting import wait_until


class Node:
    """A running process; `got` are the messages that it received."""

    def __init__(self, url: str) -> None:
        self.got: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.layers.node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "REALTIME_TEST_DB": url},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def wait_ready(self) -> str:
        """Return the process's channel, once it is in the group."""
        channel: str = self.wait_answer("channel")["channel"]
        return channel

    def wait_answer(self, key: str) -> dict[str, Any]:
        return wait_until(
            lambda: next((answer for answer in self.answers if key in answer), None),
            f"the process answered {key}",
            timeout=30,
        )

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            what = json.loads(line)
            if "got" in what:
                self.got.append(what["got"])
            else:
                self.answers.append(what)


def say(**what: Any) -> None:
    # One write, so that lines of a forked child do not mix with ours.
    os.write(1, (json.dumps(what) + "\n").encode())


async def run() -> None:
    from realtime.layers.database import DatabaseChannelLayer

    layer = DatabaseChannelLayer(capacity=10_000)
    channel = await layer.new_channel()
    await layer.group_add("all", channel)
    say(channel=channel)

    async def read(channel: str) -> None:
        while True:
            say(got=await layer.receive(channel))

    readers = [asyncio.create_task(read(channel))]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match json.loads(line):
            case {"publish": [int(count), str(sender)]}:
                for number in range(count):
                    await layer.group_send("all", {"sender": sender, "number": number})
                say(published=count)
            case {"send": [int(count), str(name)]}:
                for number in range(count):
                    last = {"last": True} if count == 1 else {}
                    await layer.send(name, {"sender": name, "number": number} | last)
                say(sent=count)
            case {"read": str(name)}:
                readers.append(asyncio.create_task(read(name)))
            case {"fork": True}:
                if os.fork() == 0:
                    after_fork(layer, channel)
            case {"close": True}:
                break
    for reader in readers:
        reader.cancel()
    await layer.close()


def after_fork(layer: Any, parents: str) -> None:
    """Use the inherited layer in the child, on a loop of its own."""

    async def use() -> None:
        channel = await layer.new_channel()
        try:
            await layer.receive(parents)
        except ValueError as error:
            say(refused=str(error))
        await layer.group_add("all", channel)
        await layer.group_send("all", {"sender": "child", "number": 0})
        say(child=channel, first=await layer.receive(channel))
        say(second=await layer.receive(channel))
        await layer.close()

    code = 1
    try:
        # The parent's loop is marked as running in this thread: a thread has none yet.
        thread = threading.Thread(target=lambda: asyncio.run(use()))
        thread.start()
        thread.join()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    import warnings

    import django

    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    django.setup()
    asyncio.run(run())
