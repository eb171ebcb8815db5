"""The two forms of the publish page: who gets what, and the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime.admin.jsontext import JsonFault, parse
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
    "AddressForm",
    "JsonForm",
    "explain",
    "fill_in",
    "focus_first_error",
    "to_publish",
]

logger = logging.getLogger("realtime")

DATA_PREFIX = "data"  # of the fields of a topic's form, which may be called as ours are

_TYPED = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class _NameField(forms.CharField):
    """Required of its own audience alone, as the form's ``clean()`` sees to."""

    def validate(self, value: Any) -> None:
        """Leave it to the form."""


class AddressForm(forms.Form):
    """Who gets an event, and which.

    ``topic`` of the cleaned data is a ``Topic``, whatever the audience; ``user`` stays a name.
    """

    required_css_class = "required"

    audience = forms.ChoiceField(
        label=_("Audience"),
        choices=[
            ("topic", _("Everyone who follows a topic")),
            ("user", _("One user")),
            ("everyone", _("Every user who is signed in")),
        ],
        initial="topic",
        widget=forms.RadioSelect,
    )
    topic = _NameField(
        label=_("Topic"),
        help_text=_("Its whole name, such as orders.42."),
        widget=forms.TextInput(attrs=_TYPED | {"list": "realtime-topics", "class": "vTextField"}),
    )
    user = _NameField(
        label=_("User"),
        help_text=_("The name with which this user signs in."),
        widget=forms.TextInput(attrs=_TYPED | {"class": "vTextField"}),
    )
    event = forms.CharField(
        label=_("Event"),
        help_text=_("What happened, in a word that the pages listen for, such as shipped."),
        widget=forms.TextInput(attrs=_TYPED | {"list": "realtime-names", "class": "vTextField"}),
    )

    def __init__(self, data: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if data is not None and not data.get("audience"):
            # A link names a topic or a user, and that is enough.
            data = {**{key: data[key] for key in data}, "audience": _audience(data)}
        super().__init__(data, **kwargs)

    def clean_event(self) -> str:
        """Refuse a name that no event can have."""
        name = self.cleaned_data["event"]
        try:
            return check_event_name(name)
        except InvalidEventName as error:
            raise forms.ValidationError(
                _("Event names have 1 to 100 of the characters A-Z a-z 0-9 _ ~ @ + : . -")
            ) from error

    def clean(self) -> dict[str, Any]:
        """Find the topic of the audience that was chosen; what the others say does not matter."""
        cleaned = self.cleaned_data
        audience = cleaned.get("audience")
        if audience == "everyone":
            cleaned["topic"] = EveryoneTopic()
        elif audience in ("topic", "user") and not cleaned.get(audience):
            self.add_error(audience, self.fields[audience].error_messages["required"])
        elif audience == "topic":
            try:
                cleaned["topic"] = _topic(cleaned["topic"])
            except forms.ValidationError as error:
                self.add_error("topic", error)
        elif audience == "user":
            try:
                cleaned["topic"] = _topic_of_user(cleaned["user"])
            except forms.ValidationError as error:
                self.add_error("user", error)
        return cleaned

    def address(self) -> dict[str, str]:
        """Return what leads here again: the query of a link."""
        cleaned = self.cleaned_data
        audience = cleaned["audience"]
        named = {} if audience == "everyone" else {audience: str(cleaned[audience])}
        return {"audience": audience, **named, "event": cleaned["event"]}


class JsonForm(forms.Form):
    """Data as JSON, for events whose topic gives no form of its own."""

    json = forms.CharField(
        label=_("Data"),
        required=False,
        strip=False,
        help_text=_("As JSON. Left empty, it is null."),
        widget=forms.Textarea(attrs=_TYPED | {"rows": 14, "class": "vLargeTextField"}),
    )

    def clean_json(self) -> Any:
        """Return what the text stands for, or say where it is wrong."""
        try:
            return parse(self.cleaned_data["json"])
        except JsonFault as fault:
            said = format_html(
                '{}<pre class="realtime-excerpt">{}</pre>', str(fault), fault.excerpt
            )
            raise forms.ValidationError(said) from fault


def to_publish(form: forms.BaseForm) -> Any:
    """Return what a valid form publishes: objects of models become their primary keys."""
    if isinstance(form, JsonForm):
        return form.cleaned_data["json"]
    return _plain(form.cleaned_data, MAX_NESTING)


def focus_first_error(form: forms.BaseForm) -> None:
    """Let the browser begin at the first field that has to be corrected, or at the first."""
    names = [name for name in form.fields if name in form.errors] or list(form.fields)
    for name in names[:1]:
        form.fields[name].widget.attrs["autofocus"] = True


def _audience(data: Mapping[str, Any]) -> str:
    return "user" if data.get("user") and not data.get("topic") else "topic"


def _topic(name: str) -> Topic:
    try:
        return resolve(name)
    except UnknownTopic as error:
        text = _("No topic of this site has the name “%(name)s”.")
        if error.nearest:
            text = _("No topic of this site has the name “%(name)s”. The nearest are: %(nearest)s")
        raise forms.ValidationError(
            text, params={"name": name, "nearest": ", ".join(error.nearest)}
        ) from error
    except InvalidTopicName as error:
        text = _(
            "Topic names have 1 to 200 characters: parts of A-Z a-z 0-9 _ ~ @ + : - that are "
            "joined by dots."
        )
        if "<" in name:
            text = _("Write a value in the place of what stands between < and >.")
        raise forms.ValidationError(text) from error


def _topic_of_user(name: str) -> Topic:
    users = get_user_model()
    user = users._default_manager.filter(**{users.USERNAME_FIELD: name}).first()
    if user is None:
        raise forms.ValidationError(_("There is no user “%(name)s”."), params={"name": name})
    return user_topic(user)


def _plain(value: Any, levels: int) -> Any:
    if isinstance(value, Model):
        return value.pk
    if not levels:
        return value  # a form may have a field for JSON; what is too deep is refused later
    if isinstance(value, Mapping):
        return {key: _plain(each, levels - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | QuerySet):
        return [_plain(each, levels - 1) for each in value]
    return value


# By the beginning of the error's own reason.
_REASONS = {
    "JSON has no ": _("%(path)s is no finite number, and JSON has no other."),
    "it is nested deeper": _("The data is nested deeper than %(limit)s levels."),
    "it has too many digits": _("%(path)s is a number of too many digits."),
}


def explain(error: InvalidData) -> str:
    """Return a sentence in the active language."""
    if isinstance(error, DataTooLarge):
        text = gettext("The data is %(size)d bytes of JSON, and %(limit)d are allowed.")
        return text % {"size": error.size, "limit": error.limit}
    values = {"path": getattr(error, "path", "data"), "limit": MAX_NESTING}
    if isinstance(error, DataNotSerializable):
        for beginning, reason in _REASONS.items():
            if error.reason.startswith(beginning):
                return str(reason) % values
    # A form or a get_publication() gives what no typing could mend.
    logger.error("data for an event cannot be published: %s", error)
    text = gettext(
        "%(path)s cannot be written as JSON. Tell the programmers: the server's log has more."
    )
    return text % values


MakeForm = Callable[..., forms.BaseForm]


def fill_in(make: MakeForm, data: Any) -> tuple[forms.BaseForm, bool]:
    """Return a form that shows what it can of an event's data, and whether it shows some.

    Args:
        make: makes the form; takes ``initial``.
        data: of the event. What is no dict fills nothing in, nor does a value for which there is
            no field, or one that the field cannot show.
    """
    empty = make()
    given = data if isinstance(data, dict) else {}
    wanted = {key: _value(empty.fields[key], given[key]) for key in given if key in empty.fields}
    if not wanted:
        return empty, False
    try:
        form = make(initial=wanted)
        shown = {key: value for key, value in wanted.items() if _is_shown(form, key)}
        # Only a new form forgets what it has begun to show.
        return (form if shown == wanted else make(initial=shown)), bool(shown)
    except Exception:
        logger.debug("a form cannot begin with the data of a stored event", exc_info=True)
        return empty, False


def _value(field: forms.Field, value: Any) -> Any:
    """Return a moment for a field of several widgets, which splits it; JSON has it as text."""
    if isinstance(field, forms.MultiValueField | forms.DateTimeField) and isinstance(value, str):
        try:
            return parse_datetime(value) or value
        except ValueError:  # such as the 30th of February
            return value
    return value


def _is_shown(form: forms.BaseForm, name: str) -> bool:
    try:
        str(form[name])
    except Exception:
        logger.debug("the field %s cannot show the data of a stored event", name, exc_info=True)
        return False
    return True
