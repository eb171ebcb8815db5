"""Chromium tabs that are really hidden and frozen.

Playwright keeps every page visible and focused and never freezes it, so this module speaks the
DevTools protocol itself.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.services import CHROMIUM_ARGS
from tests.support.waiting import SCALE, wait_until


class Refused(Exception):
    """The browser refused a command, as it does between two documents."""


class Browser:
    """The DevTools connection to one Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; ignore events."""
        frame = {"id": next(self._ids), "method": method, "params": params}
        self._socket.send(json.dumps(frame | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(20 * SCALE))
            if answer.get("id") == frame["id"]:
                if "error" in answer:
                    raise Refused(answer["error"])
                result: dict[str, Any] = answer["result"]
                return result


class Tab:
    """A new tab, which opens in front of the others."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._id: str = browser.send("Target.createTarget", url=url)["targetId"]
        self._session: str = browser.send("Target.attachToTarget", targetId=self._id, flatten=True)[
            "sessionId"
        ]

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; None if it throws."""
        options = {"expression": expression, "returnByValue": True}
        answer = self._browser.send("Runtime.evaluate", self._session, **options)
        return answer["result"].get("value")

    def wait_for(self, claim: str) -> None:
        """Wait until an expression is true."""

        def holds() -> bool:
            try:
                return self.evaluate(claim) is True
            except Refused:
                return False

        wait_until(holds, claim, timeout=20)

    def show(self) -> None:
        """Bring the tab to the front, which hides the previous one."""
        self._browser.send("Target.activateTarget", targetId=self._id)

    def freeze(self) -> None:
        """Stop the tab's timers and tasks, as a browser does with hidden tabs."""
        self._browser.send("Page.setWebLifecycleState", self._session, state="frozen")

    def thaw(self) -> None:
        """Resume the tab after ``freeze()``."""
        self._browser.send("Page.setWebLifecycleState", self._session, state="active")


@contextmanager
def start_browser(chromium: str, folder: Path) -> Iterator[Browser]:
    """Start a Chromium with this folder as its profile; stop it on exit."""
    port = folder / "DevToolsActivePort"
    arguments = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [chromium, *CHROMIUM_ARGS, *arguments, "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(
            lambda: port.is_file() and len(port.read_text().split()) == 2, "Chromium", timeout=20
        )
        number, path = port.read_text().split()
        with connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(20 * SCALE)
