"""`PublishAdminMixin`."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, transaction
from django.test import Client
from django.utils.html import escape

from realtime import log
from realtime.admin import PublishAdminMixin
from realtime.exceptions import StoreUnavailable
from realtime.stores import get_store
from tests.admin.conftest import MakeClient
from tests.testapp.admin import NoteAdmin
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

NOTES = "/admin/testapp/note/"


@pytest.fixture
def editor(staff: MakeClient) -> Client:
    """A client whose user can change notes and publish."""
    client = staff("publish_event")
    _allow_changing_notes("grace")
    return client


def _allow_changing_notes(name: str) -> None:
    permissions = Permission.objects.filter(content_type__app_label="testapp")
    User.objects.get(username=name).user_permissions.add(*permissions)


def run(client: Client, *notes: Note) -> list[str]:
    """Run the action for notes, and return the messages of the next page."""
    data = {"action": "publish_selected", "_selected_action": [note.pk for note in notes]}
    response = client.post(NOTES, data, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def note(text: str, topic: str) -> Note:
    return Note.objects.create(text=text, body=topic)


def test_the_action_needs_the_permission(staff: MakeClient, editor: Client) -> None:
    other = staff("view_logevent", name="ada")
    _allow_changing_notes("ada")
    one = note("one", "orders.1")
    assert "Publish selected notes" in editor.get(NOTES).text
    assert "publish_selected" not in other.get(NOTES).text
    run(other, one)
    assert log.history("orders.1") == []


def test_each_object_publishes_its_event_and_gets_a_history_entry(editor: Client) -> None:
    one, two = note("one", "orders.1"), note("two", "orders.1")
    nothing = note("three", "")
    [message] = run(editor, one, two, nothing)
    assert message == "2 events were published. 1 object had nothing to publish."
    published = log.history("orders.1")
    assert sorted(event.data["text"] for event in published) == ["one", "two"]
    by_text = {event.data["text"]: event for event in published}
    for each in (one, two):
        history = editor.get(f"{NOTES}{each.pk}/history/").text
        assert "noted -&gt; orders.1" in history
        assert str(by_text[each.text].cursor) in history
    assert LogEntry.objects.count() == 2


def test_the_message_about_a_single_event_shows_its_cursor(editor: Client) -> None:
    assert run(editor, note("one", "orders.1")) == [
        f"Published: noted → orders.1, cursor {log.head('orders.1')}."
    ]


def test_objects_without_an_event_publish_nothing(editor: Client) -> None:
    [message] = run(editor, note("one", ""))
    assert message == "0 events were published. 1 object had nothing to publish."


def test_one_invalid_publication_publishes_nothing(editor: Client) -> None:
    [message] = run(editor, note("one", "orders.1"), note("two", "order.1"))
    assert "Nothing was published" in message
    assert "'orders.<int:pk>'" in message
    assert log.history("orders.1") == []


def test_the_message_says_what_was_published_before_the_store_failed(
    editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = type(get_store()).append

    def fail(self: Any, topic: str, drafts: Any) -> Any:
        if topic == "orders.2":
            raise StoreUnavailable("DatabaseStore", "the network is down")
        return append(self, topic, drafts)

    monkeypatch.setattr(type(get_store()), "append", fail)
    [message] = run(editor, note("one", "orders.1"), note("two", "orders.2"), note("three", ""))
    assert "1 event was published. Not published: two." in message
    assert "the network is down" in message
    assert [entry.object_repr for entry in LogEntry.objects.all()] == ["one"]


def test_in_a_transaction_the_messages_have_no_cursor(editor: Client) -> None:
    with transaction.atomic():
        [message] = run(editor, note("one", "orders.1"), note("two", "orders.1"))
    assert message == "2 events will be published when the transaction is committed."
    assert len(log.history("orders.1")) == 2
    assert not any("(" in entry.get_change_message() for entry in LogEntry.objects.all())


def test_a_warning_is_shown_if_the_history_cannot_be_written(
    editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(NoteAdmin, "log_change", fail)
    messages = run(editor, note("one", "orders.1"))
    assert "the admin log entry could not be written" in messages[0]
    assert "Published: noted" in messages[1]


def test_a_refused_history_entry_does_not_undo_the_publish_in_a_transaction(
    editor: Client, refused_entries: None
) -> None:
    with transaction.atomic():  # as with ATOMIC_REQUESTS
        messages = run(editor, note("one", "orders.1"))
    assert "the admin log entry could not be written" in messages[0]
    assert "will be published" in messages[1]
    assert [event.data for event in log.history("orders.1")] == [{"text": "one"}]


# Publishing to everyone


def test_publishing_to_everyone_needs_a_confirmation(editor: Client) -> None:
    notes = [note("<b>loud</b>", "everyone"), note("one", "orders.1"), note("", "")]
    data = {"action": "publish_selected", "_selected_action": [each.pk for each in notes]}
    page = editor.post(f"{NOTES}?q=", data)
    assert page.status_code == 200
    assert "One event reaches every signed-in user" in page.text
    assert "noted → everyone" in page.text
    assert escape('"text": "<b>loud</b>') in page.text
    assert "One event of another topic is published as well." in page.text
    assert f'href="{NOTES}?q="' in page.text
    assert log.history("everyone") == log.history("orders.1") == []
    assert LogEntry.objects.count() == 0
    keys = re.findall(r'name="_selected_action" value="(\d+)"', page.text)
    assert sorted(map(int, keys)) == [each.pk for each in notes]
    confirmed = {"action": "publish_selected", "_selected_action": keys, "confirmed": "yes"}
    response = editor.post(NOTES, confirmed, follow=True)
    [message] = response.context["messages"]
    assert str(message).startswith("2 events were published.")
    assert [len(log.history(topic)) for topic in ("everyone", "orders.1")] == [1, 1]


def test_a_long_confirmation_page_says_how_many_more_events_there_are(editor: Client) -> None:
    notes = [note(f"number {n}", "everyone") for n in range(25)]
    data = {"action": "publish_selected", "_selected_action": [each.pk for each in notes]}
    text = editor.post(NOTES, data).text
    assert "25 events reach" in text
    assert text.count("<dt>") == 20
    assert "And 5 more." in text


def test_the_confirmation_page_needs_the_permission_too(staff: MakeClient) -> None:
    client = staff("view_logevent")
    _allow_changing_notes("grace")
    data = {"action": "publish_selected", "_selected_action": [note("x", "everyone").pk]}
    for more in ({}, {"confirmed": "yes"}):
        text = client.post(NOTES, data | more, follow=True).text
        assert "signed-in" not in text
    assert log.history("everyone") == []


def test_invalid_data_is_reported_without_a_confirmation_page(
    editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        NoteAdmin, "get_publication", lambda self, obj: ("everyone", "noted", float("nan"))
    )
    assert run(editor, note("x", "y")) == [
        "Nothing was published: data is not a finite number. JSON has only finite numbers."
    ]


# The class


class SilentAdmin(PublishAdminMixin, admin.ModelAdmin):
    """A class without `get_publication()`."""


def test_a_class_without_get_publication_is_a_check_error() -> None:
    silent = SilentAdmin(Note, admin.site)
    [error] = silent.check()
    assert error.id == "realtime.E020"
    assert "SilentAdmin" in error.msg
    assert NoteAdmin(Note, admin.site).check() == []
    with pytest.raises(
        ImproperlyConfigured, match=r"SilentAdmin does not define get_publication\(\)"
    ):
        silent.get_publication(Note())


def test_the_mixin_must_come_before_the_model_admin() -> None:
    with pytest.raises(TypeError, match=r"class Wrong\(PublishAdminMixin, admin\.ModelAdmin\)"):
        type("Wrong", (admin.ModelAdmin, PublishAdminMixin), {})


@pytest.mark.parametrize(
    ("actions", "expected"),
    [(None, None), ([], ["publish_selected"]), (["other"], ["other", "publish_selected"])],
)
def test_the_actions_of_the_class_are_kept(actions: Any, expected: Any) -> None:
    chosen = type("ChosenAdmin", (NoteAdmin,), {"actions": actions, "other": lambda *_: None})
    assert chosen(Note, admin.site).actions == expected
