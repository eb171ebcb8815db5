"""The page "Publish an event": the target first, then the data, then a confirmation if needed."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpResponseRedirect
from django.utils.translation import gettext, ngettext

from realtime import presence
from realtime.admin import history
from realtime.admin.entries import (
    ENTRY_ERRORS,
    EVERYONE,
    label,
    missing_entries_warning,
    write_entry,
)
from realtime.admin.forms import (
    DATA_PREFIX,
    JsonForm,
    TargetForm,
    event_data,
    explain,
    focus_first_error,
    prefill,
)
from realtime.admin.jsontext import pretty
from realtime.exceptions import (
    InvalidCursor,
    InvalidData,
    PublishError,
    StoreError,
)
from realtime.nodes import BEAT_SECONDS, Followers, followers_of
from realtime.protocol.events import Cursor, Draft, Event
from realtime.publishing import append, encode, in_any_transaction, publish

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from realtime.admin.events import EventAdmin
    from realtime.topics import Topic

__all__ = [
    "AlreadyPublished",
    "DataPage",
    "TargetPage",
    "new_token",
    "publish_once",
    "reach_of",
]

EVENTS_SEARCHED = 100  # newest events that are searched for one with the same name
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}")


class TargetPage:
    """The first step: the audience and the name of the event.

    The query has the form's values, so a link can prefill the form. With ``edit`` in the query,
    the page shows the form even if the values are valid.
    """

    def __init__(self, admin: EventAdmin, request: HttpRequest) -> None:
        self.admin = admin
        self.request = request
        given = any(request.GET.get(name) for name in TargetForm.base_fields)
        self.form = TargetForm(request.GET if given else None)

    def is_done(self) -> bool:
        """Return whether the second step can follow."""
        edit = self.request.method != "POST" and "edit" in self.request.GET
        return not edit and self.form.is_valid()

    def respond(self) -> HttpResponse:
        """Return the page."""
        if "edit" in self.request.GET and "event" not in self.request.GET:
            self.form = TargetForm(initial=self.request.GET.dict())
        if self.form.errors or not self.request.GET:
            focus_first_error(self.form)
        title = gettext("Publish an event")
        context = {"title": title, "form": self.form, **self.admin.suggestions()}
        breadcrumbs = [(self.admin.link("changelist"), gettext("Events"))]
        return self.admin.render(self.request, "target", context, breadcrumbs, title)


class DataPage:
    """The second step: the data, and a confirmation if the event goes to everyone."""

    def __init__(self, admin: EventAdmin, request: HttpRequest, target: TargetForm) -> None:
        self.admin = admin
        self.request = request
        self.query = target.query()
        self.topic: Topic = target.cleaned_data["topic"]
        self.name: str = target.cleaned_data["event"]
        self.label = label(self.topic, self.name)
        self.form_class = self.topic.admin_forms.get(self.name, JsonForm)

    def respond(self) -> HttpResponse:
        """Return the form, the confirmation, or a redirect after publishing."""
        if self.request.method != "POST":
            return self._show_form(*self._prefilled_form())
        form = self._form(data=self.request.POST)
        text = self._encode(form)
        if text is None or "edit" in self.request.POST:
            return self._show_form(form)
        if str(self.topic) == EVERYONE and "confirmed" not in self.request.POST:
            return self._show_confirmation(text)
        try:
            event = publish_once(self.topic, self.name, text, self._token())
        except AlreadyPublished:
            message = gettext(
                "This form has already published %(event)s with the same data. It was not "
                "published again."
            )
            messages.warning(self.request, message % {"event": self.label})
        except PublishError as error:
            message = gettext("The event was not published. Try again. Reason: %(reason)s")
            form.add_error(None, message % {"reason": error})
            return self._show_form(form)
        else:
            self._report(event)
            if event is not None:
                return HttpResponseRedirect(self.admin.link_to(event))
        return HttpResponseRedirect(self.admin.link("changelist", {"topic": self.topic}))

    # The form

    def _form(self, **kwargs: Any) -> forms.BaseForm:
        form: Any = self.form_class(prefix=DATA_PREFIX, **kwargs)
        form.required_css_class = getattr(form, "required_css_class", "required")
        return cast("forms.BaseForm", form)

    def _token(self) -> str:
        token = self.request.POST.get("token", "")
        return token if _TOKEN.fullmatch(token) else new_token()

    def _encode(self, form: forms.BaseForm) -> str | None:
        """Return the form's data as JSON; on an error, add it to the form and return None."""
        if not form.is_valid():
            return None
        try:
            return encode(event_data(form))
        except InvalidData as error:
            form.add_error(None, explain(error))
        return None

    def _prefilled_form(self) -> tuple[forms.BaseForm, str]:
        """Return the form, prefilled from a stored event, and a text that names the event."""
        try:
            event, source = self._source_event()
        except StoreError as error:
            return self._form(), history.unreadable(error)
        if event is None:
            return self._form(), source
        if issubclass(self.form_class, JsonForm):
            return self._form(initial={"json": pretty(event.data)}), source
        form, is_prefilled = prefill(self._form, event.data)
        return form, source if is_prefilled else ""

    def _source_event(self) -> tuple[Event | None, str]:
        """Return the stored event to prefill the form from, if any, and a text that names it."""
        again = self.request.GET.get("again")
        if again:
            event = self._event_to_repeat(again)
            text = gettext("Prefilled from event %(seq)s, “%(name)s”.")
            if event is None:
                text = gettext("The event to publish again is no longer stored.")
        else:
            events = history.newest(str(self.topic), EVENTS_SEARCHED)
            same_name = [event for event in events if event.name == self.name]
            event = next(iter([*same_name, *events]), None)
            text = gettext(
                "Prefilled from the last “%(name)s” event of this topic (number %(seq)s)."
            )
            if event is None:
                text = gettext("This topic has no stored events, so the form starts empty.")
            elif not same_name:
                text = gettext(
                    "None of the last %(count)s events has this name. Prefilled from the last "
                    "event of this topic (number %(seq)s, “%(name)s”)."
                )
        values = {} if event is None else {"seq": event.seq, "name": event.name}
        return event, text % (values | {"count": EVENTS_SEARCHED})

    def _event_to_repeat(self, cursor: str) -> Event | None:
        try:
            return history.find(str(self.topic), Cursor.parse(cursor))
        except InvalidCursor:
            return None

    # The responses

    def _show_form(self, form: forms.BaseForm, source: str = "") -> HttpResponse:
        focus_first_error(form)
        context = {
            "form": form,
            "source": source,
            "token": self._token(),
            "needs_confirmation": str(self.topic) == EVERYONE,
        }
        return self._render("data", context)

    def _show_confirmation(self, text: str) -> HttpResponse:
        """Return the page that asks for confirmation; its hidden fields repeat the form's data."""
        fields = [
            (key, value)
            for key, values in self.request.POST.lists()
            if key.startswith(f"{DATA_PREFIX}-")
            for value in values
        ]
        context = {"fields": fields, "token": self._token(), "data": pretty(json.loads(text))}
        return self._render("confirm", context)

    def _render(self, template: str, context: dict[str, Any]) -> HttpResponse:
        edit_url = self.admin.link("add", self.query | {"edit": 1})
        context |= {
            "title": gettext("Publish an event"),
            "event_name": self.name,
            "topic": self.topic,
            "user_name": self.query.get("user"),
            "reach": reach_of(self.topic),
            "edit_url": edit_url,
        }
        breadcrumbs = [
            (self.admin.link("changelist"), gettext("Events")),
            (edit_url, gettext("Publish an event")),
        ]
        return self.admin.render(self.request, template, context, breadcrumbs, self.label)

    def _report(self, event: Event | None) -> None:
        """Show what was published, and write it to the admin log."""
        if event is None:
            message = gettext(
                "This event will be published when the transaction is committed: %(event)s."
            )
            messages.success(self.request, message % {"event": self.label})
        else:
            message = gettext("Published: %(event)s, number %(seq)s, cursor %(cursor)s.")
            values = {"event": self.label, "seq": event.seq, "cursor": event.cursor}
            messages.success(self.request, message % values)
        try:
            write_entry(self.request, str(self.topic), self.name, event)
        except ENTRY_ERRORS:
            messages.warning(self.request, missing_entries_warning([self.label]))


def reach_of(topic: Topic) -> str:
    """Return a text that says how many members a topic has, or how many connections follow it.

    Members are counted at once and connections with each heartbeat; so both together would
    contradict each other for seconds.
    If the store cannot be read, the text says so; publishing is still possible.
    """
    try:
        if not topic.presence:
            return _connections(followers_of(str(topic)))
        members = presence.count(topic)
    except StoreError as error:
        text = gettext("The number of connections is not available: %(reason)s")
        return text % {"reason": error}
    text = ngettext("%(count)d member is present.", "%(count)d members are present.", members)
    return text % {"count": members}


def _connections(followers: Followers) -> str:
    count = followers.count
    values = {"count": count, "seconds": int(BEAT_SECONDS)}
    if not followers.is_exact:
        text = ngettext(
            "At least %(count)d connection follows this topic: a server process counts only its "
            "most followed topics.",
            "At least %(count)d connections follow this topic: a server process counts only its "
            "most followed topics.",
            count,
        )
    elif not count:
        text = gettext("No connection follows this topic (updated every %(seconds)d seconds).")
    else:
        text = ngettext(
            "%(count)d connection follows this topic (updated every %(seconds)d seconds).",
            "%(count)d connections follow this topic (updated every %(seconds)d seconds).",
            count,
        )
    return text % values


class AlreadyPublished(Exception):
    """The same form already published the same data within the last hour."""


def new_token() -> str:
    """Return a token that identifies one copy of the form."""
    return secrets.token_urlsafe(16)


def publish_once(topic: Topic, name: str, text: str, token: str) -> Event | None:
    """Publish an event, unless the same form has already published the same data.

    The store remembers the event's id. So the event is published once, even after a double click,
    or if the browser repeats a POST after a lost response.

    Args:
        topic: the topic to publish to.
        name: the event's name.
        text: the event's data as JSON.
        token: the token that identifies the form; see ``new_token()``.

    Returns:
        The event, or None if it waits for the caller's transaction to commit.

    Raises:
        AlreadyPublished: the event is already published; do not retry.
        PublishError: the event was not published; a retry is safe.
    """
    if in_any_transaction():
        return publish(topic, name, json.loads(text))
    # The id depends on the data too: a user can go back in the browser, correct the data and
    # publish a new event with the same form.
    digest = hashlib.sha256("\n".join((token, name, text)).encode()).hexdigest()[:40]
    draft = Draft(name, text, id=f"admin-{digest}")
    appended = append(topic, [draft])
    if not appended.events:
        raise AlreadyPublished
    return appended.events[0]
