"""Take screenshots of the demo and of the admin's page: light, dark, and as wide as a phone.

`python -m tools.screenshots [FOLDER]` needs Playwright and a Chromium on PATH, like the tests;
FOLDER defaults to docs/images.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Frame, Page, sync_playwright

from tools.demo_server import DemoServer
from tools.environment import ROOT, say
from tools.services import CHROMIUM_NAMES

WIDE = {"width": 1120, "height": 924}
PHONE = {"width": 390, "height": 844}
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}


def browsers(page: Page) -> tuple[Frame, Frame]:
    """Return the frames of the customer and the desk, once both are connected."""
    found = []
    for name in ("customer", "desk"):
        frame = page.frame(name=name)
        assert frame is not None
        frame.wait_for_selector("#status[data-state=connected]", state="attached")
        found.append(frame)
    return found[0], found[1]


def use(page: Page) -> None:
    """Do what a visitor does: place, ship, notify, and disconnect one browser for a moment."""
    customer, desk = browsers(page)
    customer.click("#place")
    customer.wait_for_selector("#feed [data-event=placed]")
    customer.click(".order[data-asked=false]:nth-child(2) .ask")
    desk.wait_for_selector("#feed [data-event=asked]", state="attached")
    show(page, "desk")
    desk.click(".order:last-child .ship button")
    desk.wait_for_selector("#feed [data-event=shipped]")
    show(page, "customer")
    customer.wait_for_selector("#feed [data-event=shipped]")
    customer.click("#disconnect")
    customer.wait_for_selector("#status-text >> text=/No connection for [1-9]/")
    show(page, "desk")
    desk.click("[name=to][value=ada]")
    desk.wait_for_selector("button[aria-busy]", state="detached")
    desk.click(".order:nth-last-child(2) .ship button")
    desk.wait_for_selector(".order:nth-last-child(2)[data-state=shipped]")
    show(page, "customer")
    customer.click("#disconnect")
    customer.wait_for_selector("#status-text >> text=2 events replayed")
    page.mouse.move(0, 0)
    for frame in (customer, desk):
        frame.evaluate("document.activeElement.blur()")
        frame.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")


def show(page: Page, browser: str) -> None:
    """Bring one of the browsers to the front, if only one fits into the window."""
    tab = page.locator(f".tabs [data-browser={browser}]")
    if tab.is_visible():
        tab.click()


def announce(page: Page, image: Path) -> None:
    """Take a screenshot of the admin's page "Publish an event", in its second step."""
    show(page, "desk")
    with page.expect_popup() as opened:
        browsers(page)[1].click("#announce")
    admin = opened.value
    admin.set_viewport_size(
        PHONE if page.viewport_size == PHONE else {"width": 1000, "height": 560}
    )
    admin.fill("[name$=text]", "Open until nine tonight")
    admin.click("#content h1")
    admin.screenshot(path=image)
    admin.close()


def take(browser: Browser, scratch: Path, folder: Path) -> None:
    """Take the screenshots of each view, from a demo that has been used a little."""
    fresh = DemoServer(scratch)
    for name, view in VIEWS.items():
        (scratch / name).mkdir()
        server = DemoServer(scratch / name, like=fresh)
        server.start()
        try:
            page = browser.new_page(**view)
            page.goto(server.url)
            use(page)
            page.screenshot(path=folder / f"{name}.png", full_page=page.viewport_size == PHONE)
            announce(page, folder / f"admin-{name}.png")
            page.close()
        finally:
            server.kill()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        sys.exit("the screenshots need Chromium: put chromium or google-chrome on PATH")
    with tempfile.TemporaryDirectory(prefix="realtime-demo-") as name, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        take(browser, Path(name), folder)
        browser.close()
    for image in sorted(folder.glob("*.png")):
        say(f"{image} ({image.stat().st_size // 1024} KB)")


if __name__ == "__main__":
    main()
