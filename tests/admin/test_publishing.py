"""The page "Publish an event"."""

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils.html import escape

from realtime import log, publish
from realtime.exceptions import StoreUnavailable
from realtime.models import NodeRow
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import Node
from realtime.topics import user_topic
from tests.admin.conftest import MakeClient, hidden
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

ADD = "/admin/realtime/logevent/add/"
ORDER = f"{ADD}?topic=orders.42&event=shipped"
EVERYONE = f"{ADD}?audience=everyone&event=closing"


def send(client: Client, url: str, **fields: Any) -> Any:
    """Submit the form of a page with the token that it contains."""
    token = hidden(client.get(url).text)["token"]
    return client.post(url, {"token": token, **fields}, follow=True)


def messages(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def stored(topic: str) -> list[tuple[str, Any]]:
    return [(event.name, event.data) for event in log.history(topic)]


# Permissions


@pytest.mark.parametrize("url", [ADD, ORDER])
def test_the_page_needs_the_permission(staff: MakeClient, url: str) -> None:
    for client in (staff(), staff("view_logevent", name="ada")):
        assert client.get(url).status_code == 403
        assert client.post(url, {"data-json": "1"}).status_code == 403
    assert stored("orders.42") == []


def test_anonymous_users_are_redirected_to_the_login() -> None:
    assert Client().get(ORDER).url.startswith("/admin/login/")


def test_the_index_shows_the_pages_that_the_user_can_open(staff: MakeClient) -> None:
    neither, reader, publisher = (
        staff(name="a").get("/admin/").text,
        staff("view_logevent", name="b").get("/admin/").text,
        staff("publish_event", name="c").get("/admin/").text,
    )
    assert "logevent" not in neither
    assert "/admin/realtime/logevent/" in reader
    assert ADD not in reader
    assert ADD in publisher


# The first step


def test_the_first_page_suggests_topics_and_names(publisher: Client) -> None:
    publish("orders.1", "never published from the admin".replace(" ", "-"))
    send(publisher, ORDER, **{"data-json": ""})
    text = publisher.get(ADD).text
    assert '<option value="orders.42"></option>' in text
    assert '<option value="orders." label="orders.&lt;int:pk&gt;"></option>' in text
    assert '<option value="shipped"></option>' in text
    assert '<option value="announced"></option>' in text
    assert "orders.1<" not in text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("topic=order.42&event=shipped", "Similar topics: orders.<int:pk>"),
        ("topic=orders..42&event=shipped", "not a valid topic name. Use 1 to 200 characters"),
        ("topic=orders.<int:pk>&event=shipped", "Replace each <…> with a value"),
        ("topic=orders.42&event=two words", "not a valid event name. Use 1 to 100"),
        ("topic=orders.42", "This field is required"),
        ("audience=topic&event=shipped", "This field is required"),
        ("audience=user&event=shipped", "This field is required"),
        ("user=nobody&event=shipped", "There is no user “nobody”"),
        ("audience=all&event=shipped", "Select a valid choice"),
        ("topic=<script>&event=<script>", "not a valid event name"),
    ],
)
def test_an_invalid_target_is_shown_again_with_an_error(
    publisher: Client, query: str, expected: str
) -> None:
    response = publisher.get(f"{ADD}?{query}")
    assert response.status_code == 200
    assert escape(expected) in response.text
    assert "<script>" not in response.text
    assert response.text.count("autofocus") >= 1
    for part in query.split("&"):
        name, value = part.split("=")
        if name != "audience":
            assert f'value="{escape(value)}"' in response.text


def test_the_fields_of_each_audience_are_marked_as_required(publisher: Client) -> None:
    text = publisher.get(ADD).text
    for name in ("topic", "user", "event"):
        assert re.search(rf'<label[^>]*for="id_{name}"[^>]*class="required"', text) or re.search(
            rf'<label[^>]*class="required"[^>]*for="id_{name}"', text
        )
        assert re.search(rf'<input[^>]*name="{name}"[^>]* required', text)


def test_an_error_is_linked_to_its_field(publisher: Client) -> None:
    text = publisher.get(f"{ADD}?topic=orders.42").text
    [field] = re.findall(r"<input[^>]*name=\"event\"[^>]*>", text)
    assert 'aria-invalid="true"' in field
    assert "autofocus" in field
    for name in re.search(r'aria-describedby="([^"]+)"', field)[1].split():  # type: ignore[index]
        assert f'id="{name}"' in text


def test_a_link_can_skip_the_first_step(publisher: Client) -> None:
    text = publisher.get(ORDER).text
    assert 'name="data-json"' in text
    assert "edit=1" in text
    text = publisher.get(f"{ORDER}&edit=1").text
    assert 'name="data-json"' not in text
    assert 'value="orders.42"' in text


# Publishing


def test_the_message_names_the_published_event(publisher: Client) -> None:
    response = send(publisher, ORDER, **{"data-json": '{"eta": "2026-11-24"}'})
    assert stored("orders.42") == [("shipped", {"eta": "2026-11-24"})]
    [message] = messages(response)
    cursor = str(log.head("orders.42"))
    assert "shipped → orders.42" in message
    assert f"cursor {cursor}" in message
    # The page of the event: done, and with a link to a form for another one.
    assert "2026-11-24" in response.text
    assert response.context["event"]["seq"] == 1
    assert 'name="data-json"' not in response.text
    another = publisher.get(response.context["another_url"])
    assert 'value="orders.42"' in another.text


@pytest.mark.parametrize(
    ("text", "data"), [("", None), ("0", 0), ('"ä"', "ä"), ("[1,\r\n2]", [1, 2])]
)
def test_the_published_data_is_what_was_typed(publisher: Client, text: str, data: Any) -> None:
    send(publisher, ORDER, **{"data-json": text})
    assert stored("orders.42") == [("shipped", data)]


def test_a_user_is_chosen_by_username(publisher: Client) -> None:
    ada = User.objects.create_user("ada")
    send(publisher, f"{ADD}?user=ada&event=ready", **{"data-json": "1"})
    assert stored(str(user_topic(ada))) == [("ready", 1)]


def test_the_admin_log_entry_links_to_the_event(publisher: Client) -> None:
    send(publisher, ORDER, **{"data-json": '"the data"'})
    [entry] = LogEntry.objects.all()
    assert entry.user.get_username() == "grace"
    assert entry.object_repr == "shipped -> orders.42"
    assert str(log.head("orders.42")) in entry.get_change_message()
    assert "the data" in publisher.get(entry.get_admin_url()).text
    assert entry.get_admin_url() in publisher.get("/admin/").text
    log.delete("orders.42")
    response = publisher.get(entry.get_admin_url())
    assert response.status_code == 200
    assert "no longer stored" in response.text


def test_the_page_is_not_atomic(publisher: Client, settings: Any) -> None:
    settings.DATABASES["default"]["ATOMIC_REQUESTS"] = True
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        [message] = messages(send(publisher, ORDER, **{"data-json": "1"}))
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert f"cursor {log.head('orders.42')}" in message


def test_in_a_transaction_the_message_has_no_cursor(publisher: Client) -> None:
    from django.db import transaction

    with transaction.atomic():
        [message] = messages(send(publisher, ORDER, **{"data-json": "1"}))
    assert "when the transaction is committed" in message
    assert "cursor" not in message
    assert stored("orders.42") == [("shipped", 1)]


# Invalid data


@pytest.mark.parametrize(
    ("text", "line", "column", "reason", "shown"),
    [
        ('{\n  "a": 1\n  "b": 2\n}', 3, 3, "a comma is missing here", '3 |   "b": 2\n      ^'),
        ('{"a" 1}', 1, 6, "a colon is missing here", '1 | {"a" 1}\n         ^'),
        ("[1,\r\n nix]", 2, 2, "a value is missing here", "2 |  nix]\n     ^"),
        ('["NaN", NaN]', 1, 9, "JSON has no NaN", '1 | ["NaN", NaN]\n            ^'),
        ('["<b>" x]', 1, 8, "a comma is missing here", '["<b>" x]'),
    ],
)
def test_invalid_json_is_reported_with_line_and_column(
    publisher: Client, text: str, line: int, column: int, reason: str, shown: str
) -> None:
    response = send(publisher, ORDER, **{"data-json": text})
    assert response.status_code == 200
    assert f"Line {line}, column {column}: {reason}." in response.text
    assert escape(shown) in response.text
    assert escape(text.replace("\r\n", "\n")) in response.text.replace("\r\n", "\n")
    assert "<b>" not in response.text
    assert stored("orders.42") == []


def test_a_long_line_is_shortened_around_the_error(publisher: Client) -> None:
    text = "[" + "1, " * 400 + "x" + ", 1" * 400 + "]"
    response = send(publisher, ORDER, **{"data-json": text})
    excerpt = re.search(r'<pre class="realtime-excerpt">(.*?)</pre>', response.text, re.S)
    line, caret = excerpt[1].split("\n")  # type: ignore[index]
    assert len(line) < 90
    assert line[caret.index("^")] == "x"


@pytest.mark.parametrize(
    "text",
    ["1" * 5_000, "\ufeff1", "nul", '{"a": 1}, 2', '"\\x"', '"\\u12"', "'a'", "{", '"a\tb"', "-"],
)
def test_no_text_breaks_the_page(publisher: Client, text: str) -> None:
    response = send(publisher, ORDER, **{"data-json": text})
    assert response.status_code == 200
    assert 'class="errorlist"' in response.text
    assert stored("orders.42") == []


def test_too_large_and_too_deeply_nested_data_is_rejected(publisher: Client, settings: Any) -> None:
    settings.REALTIME = {"LIMITS": {"event_bytes": 100}}
    response = send(publisher, ORDER, **{"data-json": f'"{"x" * 200}"'})
    assert "202 bytes of JSON. The limit is 100 bytes." in response.text
    for depth in (300, 100_000):
        response = send(publisher, ORDER, **{"data-json": "[" * depth + "]" * depth})
        assert response.status_code == 200
        assert "nested deeper than 100 levels" in response.text
    assert stored("orders.42") == []


def test_the_typed_data_survives_a_store_outage(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = hidden(publisher.get(ORDER).text)["token"]

    def fail(*_: Any) -> None:
        raise StoreUnavailable("DatabaseStore", "the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(type(get_store()), "append", fail)
        patch.setattr(type(get_store()), "heads", fail)
        response = publisher.post(ORDER, {"token": token, "data-json": '{"typed": 1}'})
        assert response.status_code == 200
        assert "the network is down" in response.text
        assert escape('{"typed": 1}') in response.text
        assert LogEntry.objects.count() == 0
        assert "The stored events cannot be read" in publisher.get(ORDER).text
    assert hidden(response.text)["token"] == token
    publisher.post(ORDER, {"token": token, "data-json": '{"typed": 1}'})
    assert stored("orders.42") == [("shipped", {"typed": 1})]


# Publishing once


def test_a_form_that_is_submitted_twice_publishes_once(publisher: Client) -> None:
    token = hidden(publisher.get(ORDER).text)["token"]
    first = publisher.post(ORDER, {"token": token, "data-json": "1"}, follow=True)
    second = publisher.post(ORDER, {"token": token, "data-json": "1"}, follow=True)
    assert "Published" in messages(first)[0]
    assert "already" in messages(second)[0]
    assert stored("orders.42") == [("shipped", 1)]
    assert LogEntry.objects.count() == 1
    publisher.post(ORDER, {"token": token, "data-json": "2"})
    send(publisher, ORDER, **{"data-json": "1"})
    assert [data for _, data in stored("orders.42")] == [1, 2, 1]


def test_a_warning_is_shown_if_the_log_entry_cannot_be_written(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(LogEntry, "save", fail)
    response = send(publisher, ORDER, **{"data-json": "1"})
    assert response.status_code == 200
    assert "Published" in messages(response)[0]
    assert "Do not publish it again" in messages(response)[1]


@pytest.mark.parametrize("url", [ORDER, EVERYONE])
def test_a_refused_log_entry_does_not_undo_the_publish_in_a_transaction(
    publisher: Client, refused_entries: None, url: str
) -> None:
    with transaction.atomic():  # as with ATOMIC_REQUESTS
        response = send(publisher, url, **{"data-json": "1", "confirmed": "yes"})
    assert response.status_code == 200
    assert "Do not publish it again" in messages(response)[1]
    assert [data for _, data in stored("orders.42") + stored("everyone")] == [1]


# Publishing to everyone


@pytest.mark.parametrize("url", [EVERYONE, f"{ADD}?topic=everyone&event=closing"])
def test_publishing_to_everyone_needs_a_confirmation(publisher: Client, url: str) -> None:
    text = '{"in": "5 <minutes>"}'
    page = send(publisher, url, **{"data-json": text})
    assert "every signed-in user" in page.text
    assert escape("5 <minutes>") in page.text
    assert stored("everyone") == []
    fields = hidden(page.text)
    back = publisher.post(url, fields | {"edit": "Back"})
    assert escape(text) in back.text
    assert "errorlist" not in back.text
    assert stored("everyone") == []
    response = publisher.post(url, fields | {"confirmed": "yes"}, follow=True)
    assert "closing → everyone" in messages(response)[0]
    assert stored("everyone") == [("closing", {"in": "5 <minutes>"})]


def test_invalid_data_for_everyone_is_rejected_before_the_confirmation(publisher: Client) -> None:
    response = send(publisher, EVERYONE, **{"data-json": "nix", "confirmed": "yes"})
    assert "Line 1, column 1" in response.text
    assert stored("everyone") == []


# Prefilled data


def test_the_data_is_prefilled_from_the_last_event_of_that_name(publisher: Client) -> None:
    publish("orders.42", "shipped", {"eta": "first"})
    publish("orders.42", "shipped", {"eta": "second"})
    publish("orders.42", "note", {"text": "x"})
    text = publisher.get(ORDER).text
    assert escape(json.dumps({"eta": "second"}, indent=2)) in text
    assert "Prefilled from the last “shipped” event of this topic (number 2)." in text


def test_the_data_is_prefilled_from_the_last_event_if_none_has_that_name(publisher: Client) -> None:
    assert "no stored events" in publisher.get(ORDER).text
    publish("orders.42", "note", {"text": "x"})
    text = publisher.get(ORDER).text
    assert escape(json.dumps({"text": "x"}, indent=2)) in text
    assert "Prefilled from the last event of this topic (number 1, “note”)." in text


def test_a_stored_event_can_be_published_again(publisher: Client) -> None:
    events = [publish("orders.42", "shipped", n) for n in range(3)]
    assert events[1] is not None
    url = f"{ORDER}&again={events[1].cursor}"
    text = publisher.get(url).text
    assert "Prefilled from event 2, “shipped”." in text
    assert re.search(r"<textarea[^>]*>\s*1</textarea>", text)
    log.delete("orders.42")
    assert "no longer stored" in publisher.get(url).text
    assert "no longer stored" in publisher.get(f"{ORDER}&again=nonsense").text


# Forms of a topic

ANNOUNCE = f"{ADD}?topic=announcements.all&event=announced"


def test_a_topics_form_replaces_the_json_field(publisher: Client) -> None:
    note = Note.objects.create(text="a note")
    fields = {"data-title": "Hi", "data-until": "2026-12-24", "data-note": note.pk}
    assert "data-json" not in publisher.get(ANNOUNCE).text
    send(publisher, ANNOUNCE, **fields)
    expected = {"title": "Hi", "urgent": False, "until": "2026-12-24", "note": note.pk}
    assert stored("announcements.all") == [("announced", expected)]
    text = publisher.get(ANNOUNCE).text
    assert 'value="Hi"' in text
    assert 'value="2026-12-24"' in text
    assert f'<option value="{note.pk}" selected>' in text
    assert "Prefilled from the last “announced” event" in text


def test_a_topics_form_shows_its_errors(publisher: Client) -> None:
    response = send(publisher, ANNOUNCE, **{"data-title": "x" * 41, "data-until": "2026-12-24"})
    assert "at most 40 characters" in response.text
    assert "x" * 41 in response.text
    assert stored("announcements.all") == []


def test_events_without_a_form_are_entered_as_json(publisher: Client) -> None:
    assert "data-json" in publisher.get(f"{ADD}?topic=announcements.all&event=taken-back").text


def test_a_form_without_matching_data_starts_empty(publisher: Client) -> None:
    publish("announcements.all", "note", [1, 2])
    text = publisher.get(ANNOUNCE).text
    assert "Prefilled" not in text
    assert 'name="data-title"' in text


# Reach


def reach(response: Any) -> str:
    found = re.search(r'id="realtime-reach">(.*?)</p>', response.text)
    assert found is not None
    return found[1]


def write_heartbeats(**followers: dict[str, int]) -> None:
    for id, by_topic in followers.items():
        get_store().beat(Node(id, "host", 1, "1.0", followers=by_topic), is_known=False)


@pytest.fixture
def no_nodes() -> None:
    NodeRow.objects.all().delete()


@pytest.mark.usefixtures("no_nodes")
def test_the_page_says_how_many_connections_follow_the_topic(publisher: Client) -> None:
    assert reach(publisher.get(ORDER)).startswith(
        "No connection follows this topic (updated every 10 s"
    )
    write_heartbeats(a={"orders.42": 1})
    assert reach(publisher.get(ORDER)).startswith(
        "1 connection follows this topic (updated every 10 s"
    )
    write_heartbeats(b={"orders.42": 2, "everyone": 4})
    assert reach(publisher.get(ORDER)) == (
        "3 connections follow this topic (updated every 10 seconds)."
    )
    assert reach(publisher.get(EVERYONE)).startswith("4 connections follow this topic")
    page = publisher.post(EVERYONE, {"data-json": "1", "token": "x" * 20})
    assert "Publish to everyone" in page.text
    assert reach(page).startswith("4 connections follow this topic")


@pytest.mark.usefixtures("no_nodes")
def test_the_page_says_how_many_members_a_topic_with_presence_has(
    publisher: Client,
) -> None:
    room = f"{ADD}?topic=room.lobby&event=said"
    assert reach(publisher.get(room)) == "0 members are present."
    texts = {f"user.{pk}": json.dumps({"id": f"user.{pk}"}) for pk in range(3)}
    get_store().change_members(presence_log("room.lobby"), "a", texts, [])
    write_heartbeats(a={"room.lobby": 7})
    assert reach(publisher.get(room)) == "3 members are present."  # and no older number
    get_store().change_members(presence_log("room.lobby"), "a", {}, ["user.0", "user.1"])
    assert reach(publisher.get(room)) == "1 member is present."


def test_publishing_works_even_if_the_store_cannot_list_the_nodes(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StoreUnavailable("the store", "it <is> away")

    monkeypatch.setattr(get_store(), "nodes", fail)
    text = reach(publisher.get(ORDER))
    assert text.startswith("The number of connections is not available: ")
    assert "it &lt;is&gt; away" in text
    send(publisher, ORDER, **{"data-json": "1"})
    assert stored("orders.42") == [("shipped", 1)]


@pytest.mark.usefixtures("no_nodes")
def test_the_number_of_connections_is_translated_into_german(
    publisher: Client, settings: Any
) -> None:
    settings.LANGUAGE_CODE = "de"
    write_heartbeats(a={"orders.42": 2})
    assert reach(publisher.get(ORDER)) == (
        "2 Verbindungen folgen diesem Thema (alle 10 Sekunden aktualisiert)."
    )
