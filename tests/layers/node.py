"""A process with a channel layer in the group "all", and the test's handle on it.

The process reads commands from its input and writes what happens to its output, as lines of JSON.
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
    """A running process.

    Attributes:
        got: the messages that it received.
        answers: the other lines that it wrote.
    """

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
        """Wait until the process is in the group and return its channel."""
        channel: str = self.wait_answer("channel")["channel"]
        return channel

    def wait_answer(self, key: str) -> dict[str, Any]:
        return wait_until(
            lambda: next((answer for answer in self.answers if key in answer), None),
            f"the process answered {key}",
            timeout=30,
        )

    def send_command(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            if "got" in report:
                self.got.append(report["got"])
            else:
                self.answers.append(report)


def write_report(**report: Any) -> None:
    # A single write, so that lines of a forked child do not mix with the parent's.
    os.write(1, (json.dumps(report) + "\n").encode())


async def run() -> None:
    from realtime.layers.database import DatabaseChannelLayer

    layer = DatabaseChannelLayer(capacity=10_000)
    channel = await layer.new_channel()
    await layer.group_add("all", channel)
    write_report(channel=channel)

    async def read(channel: str) -> None:
        while True:
            write_report(got=await layer.receive(channel))

    readers = [asyncio.create_task(read(channel))]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match json.loads(line):
            case {"publish": [int(count), str(sender)]}:
                for number in range(count):
                    await layer.group_send("all", {"sender": sender, "number": number})
                write_report(published=count)
            case {"send": [int(count), str(name)]}:
                for number in range(count):
                    last = {"last": True} if count == 1 else {}
                    await layer.send(name, {"sender": name, "number": number} | last)
                write_report(sent=count)
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
    """Use the inherited layer in the child, on its own loop."""

    async def use() -> None:
        channel = await layer.new_channel()
        try:
            await layer.receive(parents)
        except ValueError as error:
            write_report(refused=str(error))
        await layer.group_add("all", channel)
        await layer.group_send("all", {"sender": "child", "number": 0})
        write_report(child=channel, first=await layer.receive(channel))
        write_report(second=await layer.receive(channel))
        await layer.close()

    code = 1
    try:
        # This thread still has the parent's running loop, so the child's loop needs another thread.
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
