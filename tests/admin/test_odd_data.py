"""No stored data and no input breaks a page."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django import forms
from django.test import Client
from django.utils import translation
from django.utils.html import escape

from realtime import log, publish
from realtime.admin import forms as admin_forms
from realtime.admin.forms import explain
from realtime.exceptions import DataNotSerializable, InvalidData
from realtime.publishing import encode
from realtime.topics import Topic, isolated, register
from tests.admin.conftest import hidden
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

LIST = "/admin/realtime/logevent/"
ADD = f"{LIST}add/"
ODD = f"{ADD}?topic=odd&event=filled"
LONE = json.loads('"a\\ud800b"')


class OddForm(forms.Form):
    """One field for each kind of widget that converts its value."""

    text = forms.CharField(required=False)
    split = forms.SplitDateTimeField(required=False)
    moment = forms.DateTimeField(required=False)
    day = forms.DateField(required=False, widget=forms.SelectDateWidget)
    hour = forms.TimeField(required=False)
    duration = forms.DurationField(required=False)
    count = forms.IntegerField(required=False, localize=True)
    price = forms.DecimalField(required=False, localize=True)
    yes = forms.BooleanField(required=False)
    maybe = forms.NullBooleanField()
    one = forms.ChoiceField(required=False, choices=[("a", "A")])
    some = forms.MultipleChoiceField(required=False, choices=[("a", "A"), ("b", "B")])
    number = forms.TypedChoiceField(required=False, coerce=int, choices=[(1, "1")])
    note = forms.ModelChoiceField(Note.objects.all(), required=False)
    notes = forms.ModelMultipleChoiceField(Note.objects.all(), required=False)
    json = forms.JSONField(required=False)
    address = forms.GenericIPAddressField(required=False)
    key = forms.UUIDField(required=False)


class MoodyForm(forms.Form):
    """A form that raises for some initial data."""

    text = forms.CharField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["text"].help_text = (self.initial.get("text") or "none").upper()


class ObjectForm(forms.Form):
    """A form whose cleaned data cannot be encoded as JSON."""

    def clean(self) -> dict[str, Any]:
        return {"thing": object()}


@pytest.fixture(autouse=True)
def odd_topic() -> Iterator[None]:
    with isolated():

        @register("odd")
        class OddTopic(Topic):
            admin_forms = {"filled": OddForm, "moody": MoodyForm, "object": ObjectForm}

        yield


def send(client: Client, url: str, **fields: Any) -> Any:
    token = hidden(client.get(url).text)["token"]
    return client.post(url, {"token": token, **fields}, follow=True)


# Lone surrogates


def test_a_lone_surrogate_is_shown_on_every_page(publisher: Client) -> None:
    event = publish("orders.1", "tick", {"text": LONE})
    assert event is not None
    for url in (
        f"{LIST}?topic=orders.1",
        f"{LIST}orders.1_2F{event.cursor}/change/",
        f"{ADD}?topic=orders.1&event=tick",
        f"{ADD}?topic=orders.1&event=tick&again={event.cursor}",
    ):
        assert escape('"text": "a\\ud800b"') in publisher.get(url).text


def test_a_form_is_prefilled_with_a_lone_surrogate(publisher: Client) -> None:
    publish("odd", "filled", {"text": LONE, "json": [LONE], "some": [LONE]})
    text = publisher.get(ODD).text
    assert 'value="a\\ud800b"' in text
    assert escape('["a\\ud800b"]') in text


def test_a_lone_surrogate_passes_through_confirmation_publishing_and_errors(
    publisher: Client,
) -> None:
    url = f"{ADD}?audience=everyone&event=closing"
    page = send(publisher, url, **{"data-json": '"\\ud800"'})
    assert escape('"\\ud800"') in page.text
    publisher.post(url, hidden(page.text) | {"confirmed": "yes"}, follow=True)
    assert [event.data for event in log.history("everyone")] == ["\ud800"]
    wrong = send(publisher, ODD, **{"data-json": '"\\ud800"', "data-count": "nix"})
    assert "errorlist" in wrong.text
    assert escape('"\\ud800"') in wrong.text


# Stored data that a form cannot show

VALUES: list[Any] = [
    "x", "", LONE, "2026-02-30T99:99", "2026-13-45", 0, -1, 10**400, 1.5, True, None,
    [], [[]], [None, {}], ["a"], {}, {"a": {"b": 1}}, {"year": []}, [1, 2, 3, 4],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_no_stored_value_breaks_a_form(
    publisher: Client, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VALUES[number]
    monkeypatch.delattr("django.core.mail.outbox")  # tests refuse 10**400, production does not
    publish("odd", "filled", dict.fromkeys(OddForm.base_fields, value))
    response = publisher.get(ODD)
    assert response.status_code == 200
    assert all(f'name="data-{name}' in response.text for name in ("text", "split", "json"))


def test_values_that_a_form_cannot_show_are_left_out(publisher: Client) -> None:
    publish("odd", "filled", {"split": "x", "maybe": [], "text": "stays", "unknown": 1})
    response = publisher.get(ODD)
    assert 'value="stays"' in response.text
    assert set(response.context["form"].initial) == {"text"}
    assert "Prefilled" in response.text
    publish("odd", "filled", {"split": "x"})
    assert "Prefilled" not in publisher.get(ODD).text


def test_a_form_that_raises_for_the_data_starts_empty(publisher: Client) -> None:
    publish("odd", "moody", {"text": 5})
    response = publisher.get(f"{ADD}?topic=odd&event=moody")
    assert response.status_code == 200
    assert "NONE" in response.text
    assert "Prefilled" not in response.text


def test_dates_and_times_are_prefilled_as_they_were_typed(publisher: Client) -> None:
    typed = {
        "data-split_0": "2026-11-24",
        "data-split_1": "10:30",
        "data-moment": "2026-11-24 7:05",
    }
    for _ in range(2):
        send(publisher, ODD, **typed)
    first, second = (event.data for event in log.history("odd"))
    assert first == second
    split = datetime.fromisoformat(first["split"])
    response = publisher.get(ODD)
    assert response.context["form"].initial["split"] == split
    for value in ("2026-11-24", "10:30:00", "2026-11-24 07:05:00"):
        assert f'value="{value}"' in response.text
    assert split.astimezone(UTC).date().isoformat() == "2026-11-24"


# Data that cannot be published


@pytest.mark.parametrize("depth", [101, 600, 2_000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_too_deeply_nested_json_is_rejected_with_its_position(
    publisher: Client, settings: Any, depth: int, brackets: str
) -> None:
    text = brackets[:-1] * depth + "1" + brackets[-1] * depth
    response = send(publisher, f"{ADD}?topic=orders.1&event=tick", **{"data-json": text})
    assert response.status_code == 200
    assert "nested deeper than 100 levels here" in response.text
    assert "Line 1, column" in response.text
    assert log.history("orders.1") == []


@pytest.mark.parametrize("depth", [99, 100, 600])
def test_too_deeply_nested_json_in_a_form_field_is_rejected(publisher: Client, depth: int) -> None:
    response = send(publisher, ODD, **{"data-json": "[" * depth + "]" * depth})
    assert response.status_code == 200
    # The form itself is one level.
    assert ("nested deeper than 100 levels" in response.text) == (depth > 99)
    assert len(log.history("odd")) == (depth <= 99)


def test_data_that_cannot_be_encoded_is_reported_to_the_user_and_the_log(
    publisher: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = send(publisher, f"{ADD}?topic=odd&event=object")
    assert (
        escape("data['thing'] cannot be encoded as JSON. Contact the developers") in response.text
    )
    assert "of type object" in caplog.text
    assert "of type" not in response.text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([float("inf")], "data[0] ist keine endliche Zahl"),
        (json.loads("[" * 101 + "]" * 101), "tiefer als 100 Ebenen"),
        ([1 << 20_000], "data[0] ist eine Zahl mit zu vielen Ziffern"),
        ("x" * 100_000, "Erlaubt sind höchstens"),
        ({1j}, "lässt sich nicht als JSON schreiben"),
    ],
)
def test_the_reasons_are_translated_into_german(data: Any, expected: str) -> None:
    with pytest.raises(InvalidData) as raised:
        encode(data)
    with translation.override("de"):
        assert expected in explain(raised.value)


def test_model_instances_become_keys_at_every_level() -> None:
    note = Note.objects.create(text="x")
    form = forms.Form({})
    assert form.is_valid()
    form.cleaned_data = {"one": [note], "all": Note.objects.all()}
    assert admin_forms.event_data(form) == {"one": [note.pk], "all": [note.pk]}
    assert explain(DataNotSerializable("data", "it contains itself"))
