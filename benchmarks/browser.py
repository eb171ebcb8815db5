"""Latency from the admin's Publish button to two pages that show the event, in a real Chromium.

    python -m benchmarks.browser                # SQLite, one Daphne, skipped without a Chromium

The clock starts when the browser sends the form, and stops with the frame in which the second page
shows the event; everything runs on this machine and shares one clock.
Each publish waits for the previous one, and the admin's page is loaded before the clock starts.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import exit_on_sigterm
from tests.support.server import Server
from tests.support.services import CHROMIUM_ARGS, chromium_path
from tests.support.waiting import wait_until

PUBLISHES = 20
TOPIC = "public.bench"
ADD = f"/admin/realtime/logevent/add/?topic={TOPIC}&event=shown"

USER = """
from django.contrib.auth.models import User
User.objects.create_superuser("root", password="secret")
from django.core.management import call_command
call_command("migrate", "-v0", run_syncdb=True)
"""

# A frame shows everything that was added to the page before its animation callbacks run.
SHOW = """() => {
  window.shown = {};
  topic.on("shown", number => {
    const line = document.createElement("p");
    line.textContent = `number ${number}`;
    document.body.append(line);
    requestAnimationFrame(() => { shown[number] = Date.now(); });
  });
}"""
RECORD_SENDING = """
document.querySelector("#content-main form")
  .addEventListener("submit", () => { sessionStorage.sent = Date.now(); });
"""


def wait_for(page: Any, expression: str) -> Any:
    """Wait until an expression is true; Playwright's own wait needs a policy with 'unsafe-eval'."""
    return wait_until(lambda: page.evaluate(expression), expression, timeout=30)


def measure(page: Any, followers: list[Any], number: int) -> float:
    """Publish once; return the seconds until both pages show the event."""
    page.goto(ADD)
    page.evaluate(RECORD_SENDING)
    page.fill("textarea", str(number))
    page.click(".submit-row [type=submit]")
    shown = [wait_for(each, f"shown[{number}]") for each in followers]
    page.wait_for_selector(".messagelist .success")
    return float(max(shown) - int(page.evaluate("sessionStorage.sent"))) / 1000


def show(seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    what = "SQLite: an admin publish appears in two pages"
    print(
        f"{what:<52} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   max {ordered[-1] * 1000:6.1f} ms"
        f"   (n={len(ordered)})",
        flush=True,
    )


def run(browser: Any, port: int) -> list[float]:
    def open_page(path: str) -> Any:
        # Each context is like a separate browser: no shared session, no shared connection.
        page = browser.new_context(base_url=f"http://127.0.0.1:{port}").new_page()
        page.goto(path)
        return page

    followers = [open_page(f"/page/{TOPIC}/") for _ in range(2)]
    for each in followers:
        each.evaluate(SHOW)
        wait_for(each, "realtime.state === 'connected'")
    page = open_page("/admin/login/?next=/admin/")
    page.fill("#id_username", "root")
    page.fill("#id_password", "secret")
    page.press("#id_password", "Enter")
    page.wait_for_selector("#content")
    measure(page, followers, 0)  # the first publish compiles templates
    return [measure(page, followers, number) for number in range(1, PUBLISHES + 1)]


def main() -> None:
    exit_on_sigterm()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("an admin publish appears in two pages: skipped, Playwright is not installed")
        return
    if (chromium := chromium_path()) is None:
        print("an admin publish appears in two pages: skipped, no Chromium found")
        return
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        server.run(USER)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
            show(run(browser, server.port))
            browser.close()


if __name__ == "__main__":
    main()
