"""The output of the template tags."""

import json
import re
from typing import Any

import django
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test import Client, RequestFactory, override_settings
from django.urls import clear_script_prefix, path, set_script_prefix
from django.utils.html import escape
from django.utils.translation import gettext_lazy

from realtime.exceptions import InvalidCursor, InvalidEventName, InvalidTopicName, UnknownTopic
from realtime.protocol.events import Cursor
from tests.testapp.topics import OrderTopic

SCRIPT = "{% load realtime %}{% realtime_script %}"
SOURCE_MAP = "//# sourceMappingURL="


def render(text: str, **values: Any) -> str:
    return Template("{% load realtime %}" + text).render(Context(values))


def attributes(html: str) -> dict[str, str]:
    """Return the attributes of the only element; fail if there is other markup."""
    match = re.fullmatch(r"<([a-z-]+)((?: [a-z-]+=\"[^\"<>]*\")*)></\1>", html)
    assert match is not None, html
    return {"": match[1]} | dict(re.findall(r" ([a-z-]+)=\"([^\"]*)\"", match[2]))


def request_of(user: Any) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = user
    return request


# The script


def test_the_script_has_the_url_of_the_client_and_of_the_events() -> None:
    assert attributes(render("{% realtime_script %}")) == {
        "": "script",
        "type": "module",
        "src": "/static/realtime/realtime.js",
        "data-realtime-url": "/realtime/",
    }
    assert finders.find("realtime/realtime.js")


def test_the_script_uses_the_prefix_setting() -> None:
    with override_settings(REALTIME={"PREFIX": "live/events/"}):
        assert attributes(render("{% realtime_script %}"))["data-realtime-url"] == "/live/events/"


def test_the_script_uses_the_path_under_which_the_site_is_mounted() -> None:
    set_script_prefix("/shop/")
    try:
        assert attributes(render("{% realtime_script %}"))["data-realtime-url"] == "/shop/realtime/"
    finally:
        clear_script_prefix()


@pytest.mark.parametrize("prefix", ["//evil.example/", "/\\\\evil.example/", "///evil.example"])
def test_a_root_path_cannot_lead_to_another_host(prefix: str) -> None:
    set_script_prefix(prefix)
    try:
        text = Template("{% load realtime %}{% realtime_script %}").render(Context())
    finally:
        clear_script_prefix()
    assert 'data-realtime-url="/evil.example/realtime/"' in text


@pytest.mark.parametrize(("user", "key"), [(User(pk=7), "7"), (AnonymousUser(), "")])
def test_the_script_has_the_user_of_the_page(user: Any, key: str) -> None:
    html = Template(SCRIPT).render(Context({"request": request_of(user)}))
    assert attributes(html)["data-realtime-user"] == key


def test_the_script_can_set_the_transport() -> None:
    html = render("{% realtime_script transport='longpoll' %}")
    assert attributes(html)["data-realtime-transport"] == "longpoll"
    with pytest.raises(ValueError, match="none of websocket, sse, longpoll, poll"):
        render("{% realtime_script transport='carrier pigeon' %}")


def test_the_script_works_with_a_request_without_a_user() -> None:
    html = Template(SCRIPT).render(Context({"request": RequestFactory().get("/")}))
    assert "data-realtime-user" not in attributes(html)


def test_the_script_escapes_its_values() -> None:
    html = Template(SCRIPT).render(Context({"request": request_of(User(pk='"><script>'))}))
    assert attributes(html)["data-realtime-user"] == escape('"><script>')


class ModuleStorage(ManifestStaticFilesStorage):
    """Also rewrites the imports of modules, which Django leaves to a subclass."""

    support_js_module_import_aggregation = True


@pytest.mark.parametrize("storage", [ManifestStaticFilesStorage, ModuleStorage])
def test_the_script_uses_the_file_name_of_the_manifest(
    tmp_path: Any, settings: Any, storage: Any
) -> None:
    settings.STATIC_ROOT = str(tmp_path)
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": f"{storage.__module__}.{storage.__qualname__}"}
    }
    call_command("collectstatic", interactive=False, verbosity=0)
    src = attributes(render("{% realtime_script %}"))["src"]
    name = re.fullmatch(r"/static/(realtime/realtime\.[0-9a-f]{12}\.js)", src)
    assert name is not None
    source = finders.find("realtime/realtime.js")
    assert isinstance(source, str)
    served, comment, map_name = (tmp_path / name[1]).read_text("utf-8").rpartition(SOURCE_MAP)
    assert re.fullmatch(r"realtime\.js\.[0-9a-f]{12}\.map\n", map_name)
    with open(source, encoding="utf-8") as original:  # noqa: PTH123 - as the browser gets it
        assert served + comment + "realtime.js.map\n" == original.read()
    source_map = json.loads((tmp_path / "realtime" / map_name.strip()).read_text("utf-8"))
    assert len(source_map["sources"]) == len(source_map["sourcesContent"]) > 20


# The nonce


def nonce_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Template(SCRIPT).render(RequestContext(request)))


urlpatterns = [path("", nonce_page)]


def assert_policy_has_the_nonce(response: Any) -> None:
    nonce = attributes(response.text)["nonce"]
    assert len(nonce) >= 16
    assert f"'nonce-{nonce}'" in response.headers["Content-Security-Policy"]


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has no policy of its own before 6.0")
@pytest.mark.parametrize("processor", [True, False], ids=["with-processor", "without-processor"])
@pytest.mark.urls(__name__)
def test_the_script_has_the_nonce_of_djangos_policy(settings: Any, processor: bool) -> None:
    from django.utils.csp import CSP

    settings.MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware"]
    settings.SECURE_CSP = {"default-src": [CSP.SELF], "script-src": [CSP.NONCE]}
    if processor:
        [engine] = settings.TEMPLATES
        processors = [
            *engine["OPTIONS"]["context_processors"],
            "django.template.context_processors.csp",
        ]
        settings.TEMPLATES = [engine | {"OPTIONS": {"context_processors": processors}}]
    assert_policy_has_the_nonce(Client().get("/"))


@pytest.mark.urls(__name__)
def test_the_script_has_the_nonce_of_django_csp(settings: Any) -> None:
    from csp.constants import NONCE, SELF

    settings.MIDDLEWARE = ["csp.middleware.CSPMiddleware"]
    settings.CONTENT_SECURITY_POLICY = {
        "DIRECTIVES": {"default-src": [SELF], "script-src": [SELF, NONCE]}
    }
    assert_policy_has_the_nonce(Client().get("/"))


def test_the_script_uses_the_nonce_of_a_context_processor() -> None:
    html = Template(SCRIPT).render(Context({"csp_nonce": "abc"}))
    assert attributes(html)["nonce"] == "abc"


# The element


@pytest.mark.parametrize("topic", ["orders.42", OrderTopic(pk=42)])
def test_the_element_follows_a_topic_or_a_name(topic: Any) -> None:
    html = render("{% realtime_subscribe topic %}", topic=topic)
    assert attributes(html) == {"": "realtime-topic", "name": "orders.42"}


def test_the_element_accepts_a_lazy_name() -> None:
    html = render("{% realtime_subscribe topic %}", topic=gettext_lazy("orders.42"))
    assert attributes(html)["name"] == "orders.42"


def test_the_element_follows_the_users_own_topic_without_knowing_the_user() -> None:
    assert attributes(render("{% realtime_subscribe 'user' %}"))["name"] == "user"


def test_the_element_has_the_names_of_its_events() -> None:
    html = render("{% realtime_subscribe 'orders.42' on='shipped  reopened' %}")
    assert attributes(html)["on"] == "shipped reopened"
    html = render("{% realtime_subscribe 'orders.42' 'shipped' %}")
    assert attributes(html)["on"] == "shipped"


@pytest.mark.parametrize("since", [Cursor("abc", 3, 255), "abc.3.000000ff", "@1763801234.5"])
def test_the_element_starts_at_a_cursor_or_a_time(since: Any) -> None:
    html = render("{% realtime_subscribe 'orders.42' since=since %}", since=since)
    assert attributes(html)["since"] == str(since)


def test_the_element_starts_with_the_newest_events() -> None:
    html = render("{% realtime_subscribe 'orders.42' last=20 %}")
    assert attributes(html) == {"": "realtime-topic", "name": "orders.42", "last": "20"}


def test_the_element_without_a_start_has_no_such_attribute() -> None:
    html = render("{% realtime_subscribe 'orders.42' since=None last=None %}")
    assert attributes(html) == {"": "realtime-topic", "name": "orders.42"}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ("'odrers.42'", UnknownTopic, "orders.<int:pk>"),
        ("missing", InvalidTopicName, "it is empty"),
        ("None", InvalidTopicName, "NoneType"),
        ("'orders.42' on='two%words'", InvalidEventName, "two%words"),
        ("'orders.42' since='yesterday'", InvalidCursor, "yesterday"),
        ("'orders.42' since=missing", ValueError, "has the view set this variable"),
        ("'orders.42' last=missing", ValueError, "not a whole number"),
        ("'orders.42' last=-1", ValueError, "-1 is not a whole number"),
        ("'orders.42' last=1000000000", ValueError, "from 0 to 999999999"),
        ("'orders.42' on=None", TypeError, "on=None is not text"),
        ("'orders.42' on=7", TypeError, "on=7 is not text"),
        ("'orders.42' since='@1' last=2", ValueError, "since or last, not both"),
    ],
)
def test_the_element_refuses_wrong_arguments(
    arguments: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        render("{% realtime_subscribe " + arguments + " %}")
