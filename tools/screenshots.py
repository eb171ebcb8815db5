"""Pictures of the demo: light, dark and as wide as a phone.

`python -m tools.screenshots [FOLDER]`, with Playwright and a Chromium on PATH, as the tests have;
FOLDER is build/screenshots if not given.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tools.demo_server import DemoServer
from tools.environment import ROOT, say
from tools.services import CHROMIUM_NAMES

VIEWS = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def take(browser: Browser, server: DemoServer, folder: Path) -> None:
    """Take one picture a view, of a page that has been used a little."""
    pages = {name: browser.new_page(**view) for name, view in VIEWS.items()}
    for page in pages.values():
        page.goto(server.url)
        page.wait_for_selector("#status[data-state=live]")
    one = pages["light"]
    one.screenshot(path=folder / "fresh.png")
    for number in (2, 4):
        one.click(f"[data-order='{number}'] .ship button")
        one.wait_for_selector(f"[data-order='{number}'][data-state=shipped]")
        one.wait_for_selector("button[aria-busy]", state="detached")
    server.kill()
    for page in pages.values():
        page.wait_for_selector("#status[data-state=waiting]")
    one.screenshot(path=folder / "waiting.png")
    server.manage("shell", "-c", PUBLISH)
    server.start()
    for name, page in pages.items():
        page.wait_for_selector("#status[data-state=live]")
        page.wait_for_selector("#feed li >> text=a note")
        page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
        page.screenshot(path=folder / f"{name}.png", full_page=True)
    one.click("summary >> nth=0")
    one.click("summary >> nth=1")
    one.screenshot(path=folder / "sources.png", full_page=True)


PUBLISH = """
from realtime import publish
publish("orders.1", "note", {"text": "a note, published while the server was down"})
"""


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        sys.exit("needs Chromium: put chromium or google-chrome on PATH")
    with tempfile.TemporaryDirectory(prefix="realtime-demo-") as name:
        server = DemoServer(Path(name))
        server.start()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                take(browser, server, folder)
                browser.close()
        finally:
            server.kill()
    for picture in sorted(folder.glob("*.png")):
        say(str(picture))


if __name__ == "__main__":
    main()
