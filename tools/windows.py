"""Two windows of a Chromium, which show a document's project as its reader sees it."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from tools.environment import say
from tools.services import CHROMIUM_NAMES

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Response, WebSocket

GET_THEM = "Chromium on PATH (Debian: apt install chromium) and Playwright (pip install playwright)"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
SECONDS = 30  # for anything to appear; if it takes longer, something hangs
# The browser logs this while it cannot connect.
BREAK = re.compile(r"WebSocket connection to '[^']+/realtime/ws\?v=1' failed")
# The other transports. They are blocked, because Playwright shows only a WebSocket's frames.
OTHER_WAYS = re.compile(r"/realtime/(sse|poll|send)\b")


class Failure(Exception):
    """The check failed; the message says why."""


@contextmanager
def two_windows(url: str, username: str, password: str) -> Iterator["Windows | None"]:
    """Open two windows of one browser; yield None and print why if that is impossible.

    Raises:
        Failure: Chromium or Playwright is missing and this is CI.
    """
    path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            raise Failure(f"CI needs {GET_THEM}")
        say(f"   Not checked in a browser, which needs {GET_THEM}.")
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        context = browser.new_context(base_url=url)
        context.set_default_timeout(SECONDS * 1000)
        context.add_init_script("Math.random = () => 0.01")  # makes jitter short
        context.route(OTHER_WAYS, lambda route: route.abort())
        try:
            yield Windows([context.new_page(), context.new_page()], username, password)
        finally:
            browser.close()


def chromium_path() -> str | None:
    """Return a Chromium that starts; on some systems the one on PATH is only a stub."""
    for path in filter(None, map(shutil.which, CHROMIUM_NAMES)):
        done = subprocess.run([path, "--version"], capture_output=True, check=False)
        if done.returncode == 0:
            return path
    return None


class Windows:
    """Windows that share cookies, and the problems that they reported.

    Args:
        pages: Playwright's pages; `click` uses the first of them.
        username: the account for Django's login page.
        password: of that account.

    Attributes:
        may_break: the server was stopped, so the browser may report that it cannot connect.
    """

    def __init__(self, pages: "list[Page]", username: str, password: str) -> None:
        self.pages = pages
        self._account = (username, password)
        self._following: set[int] = set()  # numbers of the pages that received "subscribed"
        self._problems: list[str] = []
        self._opening = False
        self.may_break = False
        for number, page in enumerate(pages):
            self._watch(page, number)

    def do(self, action: str, argument: str) -> None:
        """Do `open PATH`, `fill PATH NAME=VALUE …`, `click BUTTON`, `see TEXT` or `gone TEXT`."""
        actions: dict[str, Callable[[str], None]] = {
            "open": self.open,
            "fill": self.fill,
            "click": self.click,
            "see": lambda text: self.wait_for(text, "visible"),
            "gone": lambda text: self.wait_for(text, "hidden"),
        }
        actions[action](argument)

    def open(self, path: str) -> None:
        """Open a path in every window, sign in if asked to, and wait until each follows a topic."""
        self._following.clear()
        self._opening = True
        for page in self.pages:
            self._go(page, path)
        self._opening = False
        deadline = time.monotonic() + SECONDS
        while len(self._following) < len(self.pages):
            if time.monotonic() > deadline:
                raise Failure(f"{path}: a window follows no topic; {self._said()}")
            self.pages[0].wait_for_timeout(20)

    def fill(self, argument: str) -> None:
        """Fill in a form of the admin in another window, and save it."""
        path, *fields = argument.split()
        page = self.pages[0].context.new_page()
        self._watch(page, -1)
        self._go(page, path)
        for field in fields:
            name, value = field.split("=", 1)
            page.fill(f"[name={name}]", value)
        page.click("[name=_save]")
        page.wait_for_selector(".success")
        page.close()

    def click(self, label: str) -> None:
        """Click a button in the first window."""
        self.pages[0].get_by_role("button", name=label).first.click()

    def wait_for(self, text: str, state: Literal["visible", "hidden"]) -> None:
        """Wait until every window shows a text, or until no window shows it."""
        from playwright.sync_api import TimeoutError

        for number, page in enumerate(self.pages, 1):
            try:
                page.get_by_text(text).first.wait_for(state=state)
            except TimeoutError:
                raise Failure(
                    f"window {number} should have {text!r} {state}, but it shows:\n"
                    f"{page.inner_text('body')}\n{self._said()}"
                ) from None

    def check(self) -> None:
        """Raise Failure if a window reported a problem."""
        if self._problems:
            raise Failure(self._said())

    def _said(self) -> str:
        return "the browser said: " + ("\n".join(self._problems) or "nothing")

    def _go(self, page: "Page", path: str) -> None:
        page.goto(path)
        if "/login/" in page.url:
            username, password = self._account
            page.fill("[name=username]", username)
            page.fill("[name=password]", password)
            page.click("[type=submit]")
            page.wait_for_url(f"**{path}")

    def _watch(self, page: "Page", number: int) -> None:
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self._problems.append(str(error)))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)
        if number >= 0:
            page.on("load", self._loaded)
            page.on("websocket", lambda socket: self._connected(socket, number))

    def _heard(self, kind: str, text: str) -> None:
        if kind not in {"error", "warning"} or (self.may_break and BREAK.match(text)):
            return
        if not text.startswith("Failed to load resource"):  # _answered reports which one
            self._problems.append(f"{kind}: {text}")

    def _failed(self, request: "Request") -> None:
        # If a form's response is 204, the page stays; the browser reports an aborted navigation.
        aborted = request.is_navigation_request() and request.failure == "net::ERR_ABORTED"
        if not aborted and not OTHER_WAYS.search(request.url):
            self._problems.append(f"{request.failure}: {request.url}")

    def _answered(self, response: "Response") -> None:
        if response.status >= 400 and not response.url.endswith("/favicon.ico"):
            self._problems.append(f"{response.status}: {response.url}")

    def _loaded(self, page: "Page") -> None:
        if not self._opening:
            self._problems.append(f"a window was loaded again: {page.url}")

    def _connected(self, socket: "WebSocket", number: int) -> None:
        def received(text: str | bytes) -> None:
            if json.loads(text)["type"] == "subscribed":
                self._following.add(number)

        socket.on("framereceived", received)
