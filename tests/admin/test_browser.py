"""The admin pages in Chromium, with a strict content security policy and hashed static files."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.waiting import SCALE, wait_until

ADD = "/admin/realtime/logevent/add/"
USERS = """
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("root", password="secret")
grace = User.objects.create_user("grace", password="secret", is_staff=True)
grace.user_permissions.add(Permission.objects.get(codename="publish_event"))
from django.core.management import call_command
call_command("migrate", "-v0", run_syncdb=True)
call_command("collectstatic", "--noinput", "-v0")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("admin"))
    server.env["DJANGO_SETTINGS_MODULE"] = "tests.admin.settings"
    with server:
        server.run(USERS)
        yield server


@pytest.fixture
def open_window(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open pages in separate browser contexts; console errors and warnings fail the test."""
    problems: list[str] = []
    contexts = []

    def open_window(url: str, **options: Any) -> Any:
        context = browser.new_context(base_url=f"http://127.0.0.1:{server.port}", **options)
        contexts.append(context)
        context.set_default_timeout(20_000 * SCALE)
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert problems == []


def sign_in(page: Any, name: str = "grace") -> None:
    page.fill("#id_username", name)
    page.fill("#id_password", "secret")
    page.press("#id_password", "Enter")
    page.wait_for_url(lambda url: "login" not in url)


def focused(page: Any) -> str:
    """Return the name or the text of the focused element."""
    text: str = page.evaluate(
        "(e => e.name ? e.name + (e.type === 'radio' ? '=' + e.value : '')"
        " : e.value || e.textContent.trim())(document.activeElement)"
    )
    return text


def wait_for_focus(page: Any, element: str) -> None:
    """Wait until the autofocus of a new page has reached an element; see `focused()`."""
    wait_until(lambda: focused(page) == element, f"the focus is on {element}", timeout=20)


def tab_to(page: Any, element: str, max_presses: int = 40) -> None:
    """Press Tab until an element has the focus."""
    seen = []
    for _ in range(max_presses):
        if focused(page) == element:
            return
        seen.append(focused(page))
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab did not reach {element!r}, only {seen}")


def wait_for(page: Any, expression: str) -> None:
    wait_until(lambda: page.evaluate(expression), expression, timeout=20)


def test_an_event_can_be_published_with_the_keyboard_alone(
    open_window: Callable[..., Any], server: Server
) -> None:
    pages = [open_window("/page/public.news/") for _ in range(2)]
    for each in pages:
        wait_for(each, "realtime.state === 'connected'")
    page = open_window(ADD)
    keyboard = page.keyboard
    wait_for_focus(page, "username")
    keyboard.type("grace")
    keyboard.press("Tab")
    keyboard.type("secret")
    keyboard.press("Enter")
    page.wait_for_selector("#id_event")
    wait_for_focus(page, "audience=topic")
    order = []
    for _ in range(3):
        keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["topic", "event", "Next: enter data"]  # the user field is hidden
    keyboard.press("Shift+Tab")
    keyboard.type("flash")
    keyboard.press("Shift+Tab")
    keyboard.type("public.news")
    keyboard.press("Enter")
    page.wait_for_selector("textarea")
    wait_for_focus(page, "data-json")
    keyboard.type('{"text": "hello"')
    keyboard.press("Tab")
    assert focused(page) == "Publish"
    keyboard.press("Enter")
    page.wait_for_selector(".realtime-excerpt")
    assert "Line 1, column 17" in page.inner_text(".errorlist")
    wait_for_focus(page, "data-json")
    keyboard.press("Control+End")
    keyboard.type("}")
    keyboard.press("Tab")
    keyboard.press("Enter")
    page.wait_for_selector(".messagelist .success")
    assert "flash → public.news" in page.inner_text(".messagelist")
    for each in pages:
        wait_for(each, "seen.length > 0")
        assert each.evaluate("seen") == [1]
    assert '"text": "hello"' in page.inner_text(".realtime-event")
    tab_to(page, "Publish another event")
    keyboard.press("Enter")
    page.wait_for_selector("#id_event")
    assert page.input_value("[name=topic]") == "public.news"


def test_no_page_violates_a_strict_policy(open_window: Callable[..., Any], server: Server) -> None:
    server.publish("public.policy", 2)
    page = open_window("/admin/login/?next=/admin/")
    sign_in(page, "root")
    pages = [
        "/admin/",
        "/admin/realtime/logevent/",
        "/admin/realtime/logevent/?topic=public.policy",
        "/admin/realtime/logevent/?topic=wrong",
        ADD,
        f"{ADD}?topic=wrong.1&event=x",
        f"{ADD}?topic=announcements.all&event=announced",
        f"{ADD}?audience=everyone&event=closing",
    ]
    for url in pages:
        response = page.goto(url)
        assert response.status == 200
        assert "default-src 'self'" in response.headers["content-security-policy"]
        # A style sheet that the policy blocked would be missing here.
        assert page.evaluate("document.styleSheets.length") >= 4
    page.fill("textarea", "nix")
    page.click("input[type=submit].default")
    page.wait_for_selector(".realtime-excerpt")
    page.fill("textarea", '{"in": 5}')
    page.click("input[type=submit].default")
    page.wait_for_selector("input[name=confirmed]")
    page.click("input[name=confirmed]")
    page.wait_for_selector(".messagelist .success")
    page.wait_for_selector(".realtime-event")
    # The selector can match before all style sheets are loaded.
    ours = r"/\/realtime\/admin\/events\.[0-9a-f]{12}\.css$/"
    wait_for(page, f"[...document.styleSheets].some(sheet => {ours}.test(sheet.href))")


def test_the_confirmation_of_the_action_violates_no_policy_and_fits_on_a_phone(
    open_window: Callable[..., Any], server: Server
) -> None:
    server.run(
        "from tests.testapp.models import Note\nNote.objects.create(text='x' * 90, body='everyone')"
    )
    page = open_window(
        "/admin/login/?next=/admin/testapp/note/", viewport={"width": 390, "height": 844}
    )
    sign_in(page, "root")
    page.check("#action-toggle")
    page.select_option("select[name=action]", "publish_selected")
    page.click("[name=index]")
    page.wait_for_selector("input[name=confirmed]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("input[name=confirmed]")
    page.wait_for_selector(".messagelist .success")
    assert "noted → everyone" in page.inner_text(".messagelist")


SEND_FOUR_TIMES = """
Promise.all([1, 2, 3, 4].map(() => {
  const form = new FormData(document.querySelector("#content-main form"));
  return fetch(location, {method: "POST", body: form}).then(({status}) => status);
}))
"""


def test_concurrent_submissions_of_a_form_publish_once(
    open_window: Callable[..., Any], server: Server
) -> None:
    page = open_window(f"{ADD}?topic=public.double&event=flash")
    sign_in(page)
    page.fill("textarea", '"once"')
    assert page.evaluate(SEND_FOUR_TIMES) == [200] * 4
    page.goto("/admin/realtime/logevent/?topic=public.double")
    assert page.locator(".realtime-events tbody tr").count() == 1


def test_fields_that_the_audience_does_not_need_are_hidden(
    open_window: Callable[..., Any], server: Server
) -> None:
    page = open_window(ADD)
    sign_in(page)
    for audience, shown in (
        ("topic", {"topic", "event"}),
        ("user", {"user", "event"}),
        ("everyone", {"event"}),
    ):
        page.check(f"input[value={audience}]")
        visible = {
            name for name in ("topic", "user", "event") if page.is_visible(f"input[name={name}]")
        }
        assert visible == shown


def test_no_page_scrolls_sideways_on_a_phone(
    open_window: Callable[..., Any], server: Server
) -> None:
    server.run(
        "from realtime import publish\n"
        "publish('public.phone', 'x' * 60, {'text': 'y' * 2000})\n"
        "publish('public.phone', 'short', {'text': 'y' * 200})"
    )
    page = open_window(ADD, viewport={"width": 390, "height": 844})
    sign_in(page)
    for url in (
        ADD,
        f"{ADD}?topic=public.phone&event=short",
        "/admin/realtime/logevent/?topic=public.phone",
        f"{ADD}?audience=everyone&event=closing",
    ):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, url
