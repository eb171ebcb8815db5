"""The pages of stored events, and what all admin pages have in common."""

import gettext
import re
from pathlib import Path
from typing import Any

import django
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.test import Client, override_settings
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import escape

from realtime import log, publish, publish_many
from realtime.admin import EventAdmin, history
from realtime.exceptions import StoreUnavailable
from realtime.protocol.events import Cursor, Event
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import Retention
from realtime.topics import Topic, isolated, register
from tests.admin.conftest import MakeClient, hidden

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

LIST = "/admin/realtime/logevent/"
ADD = f"{LIST}add/"


def published(topic: str, count: int) -> list[Event]:
    events = publish_many([(topic, "tick", {"n": n}) for n in range(1, count + 1)])
    assert events is not None
    return events


def numbers(response: Any) -> list[int]:
    return [event["seq"] for event in response.context["events"]]


# Permissions


def test_the_pages_need_a_permission(staff: MakeClient) -> None:
    [event] = published("orders.1", 1)
    client = staff()
    for url in (LIST, f"{LIST}?topic=orders.1", f"{LIST}orders.1_2F{event.cursor}/change/"):
        assert client.get(url).status_code == 403
        assert Client().get(url).status_code == 302


def test_users_who_can_only_view_see_no_link_to_publish(staff: MakeClient) -> None:
    [event] = published("orders.1", 1)
    client = staff("view_logevent")
    for url in (LIST, f"{LIST}?topic=orders.1", f"{LIST}orders.1_2F{event.cursor}/change/"):
        response = client.get(url)
        assert response.status_code == 200
        assert "orders.1" in response.text
        assert ADD not in response.text


@pytest.mark.parametrize("verb", ["delete", "history"])
def test_djangos_own_pages_for_rows_are_disabled(publisher: Client, verb: str) -> None:
    published("orders.1", 1)
    pk = apps.get_model("realtime", "LogEvent")._default_manager.get().pk
    assert publisher.get(f"{LIST}{pk}/{verb}/").status_code == 404
    assert publisher.get(f"{LIST}{pk}/change/").status_code == 404
    assert publisher.post(LIST, {"action": "delete_selected", "_selected_action": pk})
    assert len(log.history("orders.1")) == 1


# The list


def test_topics_are_listed_and_the_list_says_when_it_is_cut(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nothing has been published yet" in publisher.get(LIST).text
    for pk in (3, 1, 2):
        publish(f"orders.{pk}", "tick")
    assert publisher.get(LIST).context["topics"] == ["orders.1", "orders.2", "orders.3"]
    monkeypatch.setattr("realtime.admin.events.TOPICS_LISTED", 2)
    response = publisher.get(LIST)
    assert len(response.context["topics"]) == 2
    assert "The list shows 2 topics." in response.text


def test_the_newest_events_of_all_topics_are_listed(publisher: Client) -> None:
    for number, topic in enumerate(["orders.1", "public.news", "orders.2", "orders.1"], 1):
        publish(topic, "tick", {"number": number})
    get_store().change_members(presence_log("room.lobby"), "a", {"user.1": "{}"}, [])
    response = publisher.get(LIST)
    shown = [(event["topic"], event["seq"]) for event in response.context["events"]]
    assert shown == [("orders.1", 2), ("orders.2", 1), ("public.news", 1), ("orders.1", 1)]
    assert "The newest 4 events of all topics." in response.text
    assert f'href="{LIST}?topic=public.news"' in response.text


def test_events_are_found_by_topic_name_and_time(publisher: Client) -> None:
    publish("orders.1", "shipped")
    publish("orders.12", "paid")
    publish("public.news", "Shipped_late")

    def found(**query: str) -> list[tuple[str, str]]:
        response = publisher.get(LIST, query)
        return [(event["topic"], event["name"]) for event in response.context["events"]]

    assert found(event="ship") == [("public.news", "Shipped_late"), ("orders.1", "shipped")]
    assert found(topic="Orders") == [("orders.12", "paid"), ("orders.1", "shipped")]
    assert found(topic="orders.1", event="p") == [("orders.1", "shipped")]  # not of orders.12
    assert found(topic="news", event="paid") == []
    assert "No stored event matches." in publisher.get(LIST, {"event": "gone"}).text
    year = timezone.localtime().year
    assert found(since=f"{year - 1}-01-01T00:00", event="paid") == [("orders.12", "paid")]
    assert found(since=f"{year + 1}-01-01 00:00") == []
    assert found(until=f"{year - 1}-01-01T00:00") == []
    assert len(found(until=f"{year + 1}-01-01T00:00")) == 3
    publish_many([("orders.12", "ship", None)] * 101)
    assert found(topic="orders.1", event="shipped") == [("orders.1", "shipped")]
    assert found(until=timezone.localtime().strftime("%Y-%m-%dT%H:%M"), event="paid")
    for odd in ({"event": "\0"}, {"event": "x", "topic": "\0"}):
        assert "No stored event matches." in publisher.get(LIST, odd).text
    with override_settings(USE_TZ=False):
        assert "Enter times such as" in publisher.get(LIST, {"since": "0001-01-01T00:00"}).text
    response = publisher.get(LIST, {"since": "yesterday", "event": "<b>"})
    assert "Enter times such as" in response.text
    assert 'value="yesterday"' in response.text
    assert "<b>" not in response.text


def test_a_log_without_a_registered_pattern_is_not_listed(publisher: Client) -> None:
    with isolated():

        @register("gone.<int:pk>")
        class GoneTopic(Topic):
            pk: int

        publish("gone.1", "tick")
    response = publisher.get(LIST)
    assert "gone.1" not in response.text
    assert publisher.get(f"{LIST}?topic=gone.1").status_code == 200


def test_the_newest_events_come_first_and_a_link_leads_to_older_ones(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.admin.events.EVENTS_LISTED", 4)
    published("orders.1", 10)
    response = publisher.get(f"{LIST}?topic=orders.1")
    assert numbers(response) == [10, 9, 8, 7]
    assert "The newest 4 events (10 stored)." in response.text
    response = publisher.get(response.context["older_url"])
    assert numbers(response) == [6, 5, 4, 3]
    response = publisher.get(response.context["older_url"])
    assert numbers(response) == [2, 1]
    assert "older_url" not in response.context
    get_store().trim("orders.1", Retention(6, 1e9))
    response = publisher.get(f"{LIST}?topic=orders.1&before=7")
    assert numbers(response) == [6, 5]
    assert "2 older events (6 stored)." in response.text
    assert "older_url" not in response.context


def test_an_event_shows_its_data_and_can_be_published_again(publisher: Client) -> None:
    event = publish("orders.1", "shipped", {"to": "<b>Ada</b>"})
    assert event is not None
    text = publisher.get(f"{LIST}?topic=orders.1").text
    assert escape('"to": "<b>Ada</b>"') in text
    assert "<b>Ada" not in text
    assert str(event.cursor) in text
    url = re.search(r'href="([^"]*again=[^"]*)"', text)[1].replace("&amp;", "&")  # type: ignore[index]
    again = publisher.get(url)
    assert escape('"to": "<b>Ada</b>"') in again.text
    fields = {"token": hidden(again.text)["token"], "data-json": '{"to": "Bob"}'}
    publisher.post(url, fields)
    assert [each.data["to"] for each in log.history("orders.1")] == ["<b>Ada</b>", "Bob"]


def test_long_data_is_folded_and_very_long_data_is_cut(publisher: Client) -> None:
    publish("orders.1", "short", "x")
    assert "<details><summary>" not in publisher.get(f"{LIST}?topic=orders.1").text
    long = publish("orders.1", "long", "x" * 10_000)
    assert long is not None
    text = publisher.get(f"{LIST}?topic=orders.1").text
    assert "<details><summary>" in text
    assert "x" * 3_900 in text
    assert "x" * 4_000 not in text
    assert "x" * 10_000 in publisher.get(f"{LIST}orders.1_2F{long.cursor}/change/").text


@pytest.mark.parametrize("topic", ["order.1", "orders..1", "<script>", "$secret"])
def test_an_unknown_topic_is_reported(publisher: Client, topic: str) -> None:
    response = publisher.get(LIST, {"topic": topic})
    assert "This site has no topic with this name." in response.text
    assert "<script>" not in response.text


@pytest.mark.parametrize("topic", ["order.1", "orders..1", "$secret", ""])
def test_an_event_of_an_unknown_topic_has_no_page(publisher: Client, topic: str) -> None:
    [event] = published("orders.1", 1)
    url = reverse("admin:realtime_logevent_change", args=[quote(f"{topic}/{event.cursor}")])
    assert publisher.get(url).status_code == 404


def test_the_page_of_a_topic_without_events_says_so(publisher: Client) -> None:
    assert "This topic has no stored events." in publisher.get(f"{LIST}?topic=orders.1").text


def test_a_store_outage_is_reported(publisher: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    [event] = published("orders.1", 1)

    def fail(*_: Any) -> None:
        raise StoreUnavailable("DatabaseStore", "the network is down")

    monkeypatch.setattr(type(get_store()), "heads", fail)
    monkeypatch.setattr(type(get_store()), "topics", fail)
    for url in (LIST, f"{LIST}?topic=orders.1", f"{LIST}orders.1_2F{event.cursor}/change/"):
        response = publisher.get(url)
        assert response.status_code == 200
        assert "the network is down" in response.text


def test_the_pages_read_the_store_and_not_the_tables(publisher: Client, settings: Any) -> None:
    settings.REALTIME = {"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}}
    [event] = published("orders.7", 1)
    assert event.data == {"n": 1}
    assert "orders.7" in publisher.get(LIST).text
    assert numbers(publisher.get(f"{LIST}?topic=orders.7")) == [1]
    assert "orders.7" in publisher.get(f"{LIST}orders.7_2F{event.cursor}/change/").text
    page = publisher.get(f"{ADD}?topic=orders.7&event=tick")
    assert "Prefilled" in page.text
    fields = {"token": hidden(page.text)["token"], "data-json": "2"}
    for _ in range(2):
        publisher.post(f"{ADD}?topic=orders.7&event=tick", fields)
    assert [each.data for each in log.history("orders.7")] == [{"n": 1}, 2]
    assert not apps.get_model("realtime", "LogEvent")._default_manager.exists()


# Reading


def test_an_event_is_found_only_by_its_own_cursor() -> None:
    events = published("orders.1", 5)
    for event in events:
        assert event.cursor is not None
        assert history.find("orders.1", event.cursor) == event
        forged = Cursor(event.cursor.epoch, event.cursor.seq, event.cursor.tag ^ 1)
        assert history.find("orders.1", forged) is None
    assert events[4].cursor is not None
    assert history.find("orders.1", Cursor(events[4].cursor.epoch, 99, 1)) is None
    get_store().trim("orders.1", Retention(2, 1e9))
    kept = [history.find("orders.1", event.cursor) for event in events if event.cursor]
    assert kept == [None, None, None, *events[3:]]


def test_events_are_found_while_others_are_appended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = published("orders.1", 5)
    locate = type(get_store()).locate

    def append_then_locate(self: Any, topic: str, **options: Any) -> Cursor:
        publish("orders.1", "meanwhile")
        return locate(self, topic, **options)

    monkeypatch.setattr(type(get_store()), "locate", append_then_locate)
    assert events[1].cursor is not None
    assert history.find("orders.1", events[1].cursor) == events[1]
    assert [event.seq for event in history.window("orders.1", 3, before=5).events] == [2, 3, 4]


# Other admin sites, content security policies

second = admin.AdminSite(name="second")
second.register(apps.get_model("realtime", "LogEvent"), EventAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("second/", second.urls)]


@pytest.mark.urls(__name__)
def test_links_lead_to_pages_of_the_same_site(publisher: Client) -> None:
    published("orders.1", 1)
    for url in (
        reverse("second:realtime_logevent_add"),
        f"{reverse('second:realtime_logevent_add')}?topic=orders.1&event=tick",
        f"{reverse('second:realtime_logevent_changelist')}?topic=orders.1",
    ):
        response = publisher.get(url)
        assert response.status_code == 200
        assert "/second/realtime/logevent/" in response.text
        assert 'href="/admin/' not in response.text
    url = f"{reverse('second:realtime_logevent_add')}?topic=orders.1&event=tick"
    fields = {"token": hidden(publisher.get(url).text)["token"], "data-json": "1"}
    response = publisher.post(url, fields)
    assert response.url.startswith("/second/realtime/logevent/orders.1")


@pytest.mark.skipif(django.VERSION < (6, 1), reason="the admin has nonces from Django 6.1 on")
def test_every_script_and_style_sheet_has_the_nonce(publisher: Client, settings: Any) -> None:
    settings.MIDDLEWARE = [
        "django.middleware.csp.ContentSecurityPolicyMiddleware",
        *settings.MIDDLEWARE,
    ]
    settings.SECURE_CSP = {"default-src": ["'none'"], "style-src": ["<CSP_NONCE_SENTINEL>"]}
    [engine] = settings.TEMPLATES
    processors = [
        *engine["OPTIONS"]["context_processors"],
        "django.template.context_processors.csp",
    ]
    settings.TEMPLATES = [engine | {"OPTIONS": {"context_processors": processors}}]
    response = publisher.get(f"{ADD}?topic=announcements.all&event=announced")
    loaded = re.findall(r"<(?:script|link)\b[^>]*>", response.text)
    assert len(loaded) >= 7
    assert "admin/js/core.js" in response.text
    nonce = re.search(r"nonce-([^']+)'", response.headers["Content-Security-Policy"])
    assert nonce is not None
    assert [tag for tag in loaded if f'nonce="{nonce[1]}"' not in tag] == []


@pytest.mark.parametrize(
    "url", [LIST, f"{LIST}?topic=orders.1", ADD, f"{ADD}?audience=everyone&event=x"]
)
def test_the_pages_have_no_inline_script_or_style(publisher: Client, url: str) -> None:
    published("orders.1", 1)
    text = publisher.get(url).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)


def test_every_field_has_a_label(publisher: Client) -> None:
    for url in (ADD, f"{ADD}?topic=announcements.all&event=announced", f"{ADD}?user=x&event=y"):
        text = publisher.get(url).text
        main = text[text.index('id="content-main"') :]
        fields = re.findall(
            r'<(?:input|textarea|select)(?![^>]*type="(?:hidden|submit)")[^>]*\bid="([^"]+)"', main
        )
        assert len(fields) >= 3
        for field in fields:
            assert f'for="{field}"' in main
        for names in re.findall(r'aria-describedby="([^"]+)"', main):
            for name in names.split():
                assert f'id="{name}"' in main


# German


LOCALE = Path(apps.get_app_config("realtime").path) / "locale"


def test_the_pages_are_translated_into_german(publisher: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"
    assert "Ereignis veröffentlichen" in publisher.get(ADD).text
    text = publisher.get(f"{ADD}?topic=orders.1&event=tick").text
    fields = {"token": hidden(text)["token"], "data-json": "[1 2]"}
    text = publisher.post(f"{ADD}?topic=orders.1&event=tick", fields).text
    assert "Zeile 1, Spalte 4: hier fehlt ein Komma." in text
    fields = {"token": hidden(text)["token"], "data-json": "1"}
    text = publisher.post(f"{ADD}?topic=orders.1&event=tick", fields, follow=True).text
    assert "Veröffentlicht: tick → orders.1, Nummer 1, Cursor" in text
    assert "Ereignisse" in publisher.get("/admin/").text


def test_every_text_has_a_german_translation() -> None:
    with (LOCALE / "de/LC_MESSAGES/django.mo").open("rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    known = {key[0] if isinstance(key, tuple) else key for key in catalog if catalog[key]}
    # Django translates these. Our translation would replace Django's on every page of a project.
    from_django = {
        "Django site admin",
        "Error:",
        "Home",
        "Please correct the error below.",
    }
    assert set(_texts()) - known == from_django


def _texts() -> list[str]:
    """Return the translatable texts of the templates and the code, as `makemessages` does."""
    from django.utils.translation.template import templatize

    root = LOCALE.parent
    sources = [root / "models.py", *(root / "admin").glob("*.py")]
    contents = [path.read_text() for path in sources]
    contents += [
        templatize(p.read_text()) for p in (root / "templates/admin/realtime").glob("*.html")
    ]
    found: list[str] = []
    string = r"""u?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    calls_pattern = rf"\b(?:_|gettext|n?gettext_lazy|ngettext)\(\s*((?:{string}\s*)+)"
    for content in contents:
        calls = re.findall(calls_pattern, content)
        found += ["".join(eval(each) for each in re.findall(string, call)) for call in calls]
    assert len(found) > 60
    return found
