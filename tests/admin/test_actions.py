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
    """Somebody who may change notes and publish."""
    client = staff("publish_event")
    _let_change_notes("grace")
    return client


def _let_change_notes(name: str) -> None:
    permissions = Permission.objects.filter(content_type__app_label="testapp")
    User.objects.get(username=name).user_permissions.add(*permissions)


def run(client: Client, *notes: Note) -> list[str]:
    """Run the action for notes; return what the page says."""
    data = {"action": "publish_selected", "_selected_action": [note.pk for note in notes]}
    response = client.post(NOTES, data, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def note(text: str, topic: str) -> Note:
    return Note.objects.create(text=text, body=topic)


def test_the_action_needs_the_permission(staff: MakeClient, editor: Client) -> None:
    other = staff("view_logevent", name="ada")
    _let_change_notes("ada")
    one = note("one", "orders.1")
    assert "Publish selected notes" in editor.get(NOTES).text
    assert "publish_selected" not in other.get(NOTES).text
    run(other, one)
    assert log.history("orders.1") == []


def test_each_object_publishes_its_event_and_has_it_in_its_history(editor: Client) -> None:
    one, two = note("one", "orders.1"), note("two", "orders.1")
    nothing = note("three", "")
    [message] = run(editor, one, two, nothing)
    assert message == "2 events were published. For 1 object there was nothing to publish."
    published = log.history("orders.1")
    assert sorted(event.data["text"] for event in published) == ["one", "two"]
    of_text = {event.data["text"]: event for event in published}
    for each in (one, two):
        history = editor.get(f"{NOTES}{each.pk}/history/").text
        assert "noted → orders.1" in history
        assert str(of_text[each.text].cursor) in history
    assert LogEntry.objects.count() == 2


def test_a_single_event_is_named_with_its_cursor(editor: Client) -> None:
    assert run(editor, note("one", "orders.1")) == [
        f"Published: noted → orders.1, cursor {log.head('orders.1')}."
    ]


def test_objects_without_an_event_publish_nothing(editor: Client) -> None:
    [message] = run(editor, note("one", ""))
    assert message == "0 events were published. For 1 object there was nothing to publish."


def test_a_wrong_publication_publishes_nothing(editor: Client) -> None:
    [message] = run(editor, note("one", "orders.1"), note("two", "order.1"))
    assert "Nothing was published" in message
    assert "'orders.<int:pk>'" in message
    assert log.history("orders.1") == []


def test_it_says_what_went_out_before_the_store_failed(
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


def test_in_a_transaction_it_claims_no_cursor(editor: Client) -> None:
    with transaction.atomic():
        [message] = run(editor, note("one", "orders.1"), note("two", "orders.1"))
    assert message == "2 events go out when this change is saved."
    assert len(log.history("orders.1")) == 2
    assert not any("(" in entry.get_change_message() for entry in LogEntry.objects.all())


def test_a_history_that_cannot_be_written_is_said(
    editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(NoteAdmin, "log_change", fail)
    messages = run(editor, note("one", "orders.1"))
    assert "could not be written to the history" in messages[0]
    assert "Published: noted" in messages[1]


# Everyone


def test_everyone_is_reached_after_a_question_only(editor: Client) -> None:
    notes = [note("<b>loud</b>", "everyone"), note("one", "orders.1"), note("", "")]
    data = {"action": "publish_selected", "_selected_action": [each.pk for each in notes]}
    question = editor.post(f"{NOTES}?q=", data)
    assert question.status_code == 200
    assert "One event of those that were selected reaches every signed-in user" in question.text
    assert "noted → everyone" in question.text
    assert escape('"text": "<b>loud</b>') in question.text
    assert "One event to another topic goes out too." in question.text
    assert f'href="{NOTES}?q="' in question.text
    assert log.history("everyone") == log.history("orders.1") == []
    assert LogEntry.objects.count() == 0
    keys = re.findall(r'name="_selected_action" value="(\d+)"', question.text)
    assert sorted(map(int, keys)) == [each.pk for each in notes]
    done = {"action": "publish_selected", "_selected_action": keys, "confirmed": "yes"}
    response = editor.post(NOTES, done, follow=True)
    [message] = response.context["messages"]
    assert str(message).startswith("2 events were published.")
    assert [len(log.history(topic)) for topic in ("everyone", "orders.1")] == [1, 1]


def test_a_long_question_says_how_much_more_there_is(editor: Client) -> None:
    notes = [note(f"number {n}", "everyone") for n in range(25)]
    data = {"action": "publish_selected", "_selected_action": [each.pk for each in notes]}
    text = editor.post(NOTES, data).text
    assert "25 events of those" in text
    assert text.count("<dt>") == 20
    assert "And 5 more." in text


def test_the_question_needs_the_permission_as_the_action_does(staff: MakeClient) -> None:
    client = staff("view_logevent")
    _let_change_notes("grace")
    data = {"action": "publish_selected", "_selected_action": [note("x", "everyone").pk]}
    for more in ({}, {"confirmed": "yes"}):
        text = client.post(NOTES, data | more, follow=True).text
        assert "signed-in" not in text
    assert log.history("everyone") == []


def test_data_that_cannot_be_sent_are_said_and_not_asked_about(
    editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        NoteAdmin, "get_publication", lambda self, obj: ("everyone", "noted", float("nan"))
    )
    assert run(editor, note("x", "y")) == [
        "Nothing was published: data is no finite number, and JSON has no other."
    ]


# The class


class SilentAdmin(PublishAdminMixin, admin.ModelAdmin):
    """It does not say what it publishes."""


def test_a_class_without_get_publication_is_a_check_error() -> None:
    silent = SilentAdmin(Note, admin.site)
    [error] = silent.check()
    assert error.id == "realtime.E020"
    assert "SilentAdmin" in error.msg
    assert NoteAdmin(Note, admin.site).check() == []
    with pytest.raises(ImproperlyConfigured, match="SilentAdmin has to say what it publishes"):
        silent.get_publication(Note())


def test_the_mixin_stands_before_the_model_admin() -> None:
    with pytest.raises(TypeError, match=r"class Wrong\(PublishAdminMixin, admin\.ModelAdmin\)"):
        type("Wrong", (admin.ModelAdmin, PublishAdminMixin), {})


@pytest.mark.parametrize(
    ("actions", "expected"),
    [(None, None), ([], ["publish_selected"]), (["other"], ["other", "publish_selected"])],
)
def test_actions_of_the_class_are_kept(actions: Any, expected: Any) -> None:
    chosen = type("ChosenAdmin", (NoteAdmin,), {"actions": actions, "other": lambda *_: None})
    assert chosen(Note, admin.site).actions == expected
