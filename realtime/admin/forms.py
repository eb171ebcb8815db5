"""The forms of the publish page: one for the target of an event, one for its data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime.admin.jsontext import InvalidJson, parse
from realtime.exceptions import (
    DataNotSerializable,
    DataTooLarge,
    InvalidData,
    InvalidEventName,
    InvalidTopicName,
    UnknownTopic,
)
from realtime.protocol.events import check_event_name
from realtime.protocol.frames import MAX_NESTING
from realtime.topics import EveryoneTopic, Topic, resolve, user_topic

__all__ = [
    "DATA_PREFIX",
    "JsonForm",
    "TargetForm",
    "event_data",
    "explain",
    "focus_first_error",
    "prefill",
]

logger = logging.getLogger("realtime")

DATA_PREFIX = "data"  # separates the fields of a topic's form from those of the page

_PLAIN_INPUT = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class _NameField(forms.CharField):
    """A field that only one audience requires; ``TargetForm.clean()`` checks that."""

    def validate(self, value: Any) -> None:
        """Accept an empty value."""


class SearchForm(forms.Form):
    """What to search for in the stored events; everything is optional."""

    topic = forms.CharField(required=False)
    event = forms.CharField(required=False)
    since = forms.DateTimeField(required=False)
    until = forms.DateTimeField(required=False)

    def clean_since(self) -> float | None:
        """Return the time in seconds since 1970."""
        return _timestamp(self.cleaned_data["since"])

    def clean_until(self) -> float | None:
        """Return the end of the minute that was entered, in seconds since 1970."""
        until = _timestamp(self.cleaned_data["until"])
        return None if until is None else until + 60 if until % 60 == 0 else until


def _timestamp(value: datetime | None) -> float | None:
    try:
        return None if value is None else value.timestamp()
    except (ValueError, OverflowError) as error:  # such as year 1 in the local time zone
        raise forms.ValidationError(str(error)) from error


class TargetForm(forms.Form):
    """The audience and the name of an event.

    In the cleaned data, ``topic`` is a ``Topic`` for every audience, and ``user`` is the name that
    was entered.
    """

    required_css_class = "required"

    audience = forms.ChoiceField(
        label=_("Audience"),
        choices=[
            ("topic", _("Everyone who follows a topic")),
            ("user", _("One user")),
            ("everyone", _("Every signed-in user")),
        ],
        initial="topic",
        widget=forms.RadioSelect,
    )
    topic = _NameField(
        label=_("Topic"),
        help_text=_("The full name of the topic, for example orders.42."),
        widget=forms.TextInput(
            attrs=_PLAIN_INPUT | {"list": "realtime-topics", "class": "vTextField"}
        ),
    )
    user = _NameField(
        label=_("User"),
        help_text=_("The name the user signs in with."),
        widget=forms.TextInput(attrs=_PLAIN_INPUT | {"class": "vTextField"}),
    )
    event = forms.CharField(
        label=_("Event"),
        help_text=_("The event name that pages listen for, for example shipped."),
        widget=forms.TextInput(
            attrs=_PLAIN_INPUT | {"list": "realtime-names", "class": "vTextField"}
        ),
    )

    def __init__(self, data: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if data is not None and not data.get("audience"):
            # A link can omit the audience if it names a topic or a user.
            data = {**{key: data[key] for key in data}, "audience": _implied_audience(data)}
        super().__init__(data, **kwargs)

    def clean_event(self) -> str:
        """Reject a name that is not a valid event name."""
        name = self.cleaned_data["event"]
        try:
            return check_event_name(name)
        except InvalidEventName as error:
            raise forms.ValidationError(
                _(
                    "This is not a valid event name. Use 1 to 100 of the characters A-Z a-z 0-9 "
                    "_ ~ @ + : . -"
                )
            ) from error

    def clean(self) -> dict[str, Any]:
        """Find the topic of the chosen audience, and ignore the fields of the other audiences."""
        cleaned = self.cleaned_data
        audience = cleaned.get("audience")
        if audience == "everyone":
            cleaned["topic"] = EveryoneTopic()
        elif audience in ("topic", "user") and not cleaned.get(audience):
            self.add_error(audience, self.fields[audience].error_messages["required"])
        elif audience == "topic":
            try:
                cleaned["topic"] = _resolve(cleaned["topic"])
            except forms.ValidationError as error:
                self.add_error("topic", error)
        elif audience == "user":
            try:
                cleaned["topic"] = _topic_of_user(cleaned["user"])
            except forms.ValidationError as error:
                self.add_error("user", error)
        return cleaned

    def query(self) -> dict[str, str]:
        """Return the URL query that fills this form with the same values."""
        cleaned = self.cleaned_data
        audience = cleaned["audience"]
        named = {} if audience == "everyone" else {audience: str(cleaned[audience])}
        return {"audience": audience, **named, "event": cleaned["event"]}


class JsonForm(forms.Form):
    """The data as JSON text, for events without a form in ``Topic.admin_forms``."""

    json = forms.CharField(
        label=_("Data"),
        required=False,
        strip=False,
        help_text=_("JSON. An empty field means null."),
        widget=forms.Textarea(attrs=_PLAIN_INPUT | {"rows": 14, "class": "vLargeTextField"}),
    )

    def clean_json(self) -> Any:
        """Return the parsed JSON; the error message shows the position of a mistake."""
        try:
            return parse(self.cleaned_data["json"])
        except InvalidJson as error:
            message = format_html(
                '{}<pre class="realtime-excerpt">{}</pre>', str(error), error.excerpt
            )
            raise forms.ValidationError(message) from error


def event_data(form: forms.BaseForm) -> Any:
    """Return the data of a valid form, with primary keys instead of model instances."""
    if isinstance(form, JsonForm):
        return form.cleaned_data["json"]
    return _with_keys(form.cleaned_data, MAX_NESTING)


def focus_first_error(form: forms.BaseForm) -> None:
    """Focus the first field with an error, or the first field if there is no error."""
    names = [name for name in form.fields if name in form.errors] or list(form.fields)
    for name in names[:1]:
        form.fields[name].widget.attrs["autofocus"] = True


def _implied_audience(data: Mapping[str, Any]) -> str:
    return "user" if data.get("user") and not data.get("topic") else "topic"


def _resolve(name: str) -> Topic:
    try:
        return resolve(name)
    except UnknownTopic as error:
        text = _("This site has no topic “%(name)s”.")
        if error.nearest:
            text = _("This site has no topic “%(name)s”. Similar topics: %(nearest)s")
        raise forms.ValidationError(
            text, params={"name": name, "nearest": ", ".join(error.nearest)}
        ) from error
    except InvalidTopicName as error:
        text = _(
            "This is not a valid topic name. Use 1 to 200 characters: segments of A-Z a-z 0-9 "
            "_ ~ @ + : - joined by dots."
        )
        if "<" in name:
            text = _("Replace each <…> with a value, for example <int:pk> with 42.")
        raise forms.ValidationError(text) from error


def _topic_of_user(name: str) -> Topic:
    users = get_user_model()
    user = users._default_manager.filter(**{users.USERNAME_FIELD: name}).first()
    if user is None:
        raise forms.ValidationError(_("There is no user “%(name)s”."), params={"name": name})
    return user_topic(user)


def _with_keys(value: Any, levels: int) -> Any:
    if isinstance(value, Model):
        return value.pk
    if not levels:
        return value  # a JSONField's value can be nested too deeply; encode() rejects that
    if isinstance(value, Mapping):
        return {key: _with_keys(each, levels - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | QuerySet):
        return [_with_keys(each, levels - 1) for each in value]
    return value


# Keys are the beginnings of DataNotSerializable.reason.
_REASONS = {
    "JSON has no ": _("%(path)s is not a finite number. JSON has only finite numbers."),
    "it is nested deeper": _("The data is nested deeper than %(limit)s levels."),
    "it has too many digits": _("%(path)s is a number with too many digits."),
}


def explain(error: InvalidData) -> str:
    """Return what is wrong with an event's data, in the active language."""
    if isinstance(error, DataTooLarge):
        text = gettext("The data is %(size)d bytes of JSON. The limit is %(limit)d bytes.")
        return text % {"size": error.size, "limit": error.limit}
    values = {"path": getattr(error, "path", "data"), "limit": MAX_NESTING}
    if isinstance(error, DataNotSerializable):
        for beginning, reason in _REASONS.items():
            if error.reason.startswith(beginning):
                return str(reason) % values
    # The form or get_publication() has a bug, which the user cannot work around.
    logger.error("the data of an event cannot be published: %s", error)
    text = gettext(
        "%(path)s cannot be encoded as JSON. Contact the developers of this site; the server log "
        "has the details."
    )
    return text % values


FormFactory = Callable[..., forms.BaseForm]


def prefill(make_form: FormFactory, data: Any) -> tuple[forms.BaseForm, bool]:
    """Return a form prefilled from an event's data, and whether any field has a value from it.

    Args:
        make_form: makes the form; takes ``initial``.
        data: the event's data. Values without a field, and values that the field cannot show, are
            left out; data that is not a dict leaves the form empty.
    """
    empty = make_form()
    values = data if isinstance(data, dict) else {}
    fields = empty.fields
    initial = {key: _initial(fields[key], values[key]) for key in values if key in fields}
    if not initial:
        return empty, False
    try:
        form = make_form(initial=initial)
        shown = {key: value for key, value in initial.items() if _can_render(form, key)}
        # A form caches its bound fields, so other initial values need a new form.
        return (form if shown == initial else make_form(initial=shown)), bool(shown)
    except Exception:
        logger.debug("a form cannot be prefilled from a stored event", exc_info=True)
        return empty, False


def _initial(field: forms.Field, value: Any) -> Any:
    """Return the initial value for a field; parse a date and time, which is text in JSON."""
    if isinstance(field, forms.MultiValueField | forms.DateTimeField) and isinstance(value, str):
        try:
            return parse_datetime(value) or value
        except ValueError:  # for example February 30
            return value
    return value


def _can_render(form: forms.BaseForm, name: str) -> bool:
    try:
        str(form[name])
    except Exception:
        logger.debug("field %s cannot show the value in a stored event", name, exc_info=True)
        return False
    return True
