"""The documented loop for event streams in Python comes back after every break."""

import contextlib
import re
import threading
from itertools import count
from pathlib import Path
from typing import Any

from tests.js.proxy import Proxy, Verdict
from tests.support.server import Server
from tests.support.waiting import wait_until
from tools.environment import ROOT

LOOP = re.compile(r"<!-- httpx-sse: run -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Stopped(Exception):
    """Ends the endless loop of the example."""


def test_the_documented_loop_receives_every_event_once(tmp_path: Path) -> None:
    match = LOOP.search((ROOT / "docs/clients.md").read_text())
    assert match is not None
    example: dict[str, Any] = {}
    exec(match[1], example)
    numbers = count()

    def rule(method: str, path: str) -> Verdict:
        return "away" if next(numbers) % 2 else "cut"

    with Server(tmp_path) as server, Proxy(server.port, rule) as proxy:
        frames: list[dict[str, Any]] = []
        is_over = threading.Event()

        def receive(frame: dict[str, Any]) -> None:
            frames.append(frame)
            if is_over.is_set():
                raise Stopped

        def run() -> None:
            with contextlib.suppress(Stopped):
                example["follow"](
                    f"http://127.0.0.1:{proxy.port}/realtime/sse?topic=public.x", receive
                )

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(lambda: any(one["type"] == "subscribed" for one in frames), "subscribed", 20)
        for start in range(3):
            requests = len(proxy.requests)
            server.publish("public.x", 1, start=start)
            wait_until(lambda n=requests: len(proxy.requests) >= n + 2, "it has come back", 20)
        wait_until(lambda: sum(one["type"] == "event" for one in frames) >= 3, "3 events", 20)
        is_over.set()
        thread.join(20)
    assert [one["data"] for one in frames if one["type"] == "event"] == [0, 1, 2]
    assert not any(one.get("recovered") is False for one in frames)
