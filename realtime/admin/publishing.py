"""The page "Publish an event": who gets which event, then its data, then it is out."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext

from realtime.admin import history
from realtime.admin.entries import EVERYONE, label, note
from realtime.admin.forms import (
    DATA_PREFIX,
    AddressForm,
    JsonForm,
    explain,
    fill_in,
    focus_first_error,
    to_publish,
)
from realtime.admin.jsontext import pretty
from realtime.exceptions import (
    InvalidCursor,
    InvalidData,
    PublishError,
    StoreError,
)
from realtime.nodes import BEAT_SECONDS, Followers, followers_of
from realtime.presence import log_of
from realtime.protocol.events import Cursor, Draft, Event
from realtime.publishing import append, encode, in_any_transaction, publish
from realtime.stores import get_store

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from realtime.admin.events import EventAdmin
    from realtime.topics import Topic

__all__ = [
    "AddressPage",
    "AlreadyPublished",
    "DataPage",
    "audience_of",
    "new_token",
    "publish_once",
]

LOOKED_AT = 100  # stored events among which one of the same name is looked for
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}")


class AddressPage:
    """The first step: who gets an event, and which.

    Its answers are in the query, so that they can be linked; ``edit`` stays here though they are
    right.
    """

    def __init__(self, admin: EventAdmin, request: HttpRequest) -> None:
        self.admin = admin
        self.request = request
        given = any(request.GET.get(name) for name in AddressForm.base_fields)
        self.form = AddressForm(request.GET if given else None)

    def is_done(self) -> bool:
        """Tell whether the data can be asked for."""
        edit = self.request.method != "POST" and "edit" in self.request.GET
        return not edit and self.form.is_valid()

    def respond(self) -> HttpResponse:
        """Return the page."""
        if "edit" in self.request.GET and "event" not in self.request.GET:
            self.form = AddressForm(initial=self.request.GET.dict())
        if self.form.errors or not self.request.GET:
            focus_first_error(self.form)
        title = gettext("Publish an event")
        context = {"title": title, "form": self.form, **self.admin.suggestions()}
        crumbs = [(self.admin.link("changelist"), gettext("Events"))]
        return self.admin.render(self.request, "address", context, crumbs, title)


class DataPage:
    """The second step: the data, and a question before everyone gets them."""

    def __init__(self, admin: EventAdmin, request: HttpRequest, address: AddressForm) -> None:
        self.admin = admin
        self.request = request
        self.query = address.address()
        self.topic: Topic = address.cleaned_data["topic"]
        self.name: str = address.cleaned_data["event"]
        self.label = label(self.topic, self.name)
        self.form_class = self.topic.admin_forms.get(self.name, JsonForm)

    def respond(self) -> HttpResponse:
        """Answer the request: the form, the question, or where to go when the event is out."""
        if self.request.method != "POST":
            return self._ask(*self._prefilled())
        form = self._form(data=self.request.POST)
        text = self._encoded(form)
        if text is None or "edit" in self.request.POST:
            return self._ask(form)
        if str(self.topic) == EVERYONE and "confirmed" not in self.request.POST:
            return self._confirm(text)
        try:
            event = publish_once(self.topic, self.name, text, self._token())
        except AlreadyPublished:
            said = gettext(
                "This form has published %(event)s already, with the same data. Nothing was "
                "published now."
            )
            url = self.admin.link("changelist", {"topic": self.topic})
            text = gettext("Show the events of this topic")
            self._tell(messages.WARNING, said % {"event": self.label}, url, text)
        except PublishError as error:
            said = gettext("This was not published. Try again: %(reason)s") % {"reason": error}
            form.add_error(None, said)
            return self._ask(form)
        else:
            self._say(event)
        return HttpResponseRedirect(self.admin.link("add", self.query | {"edit": 1}))

    # The form

    def _form(self, **kwargs: Any) -> forms.BaseForm:
        form: Any = self.form_class(prefix=DATA_PREFIX, **kwargs)
        form.required_css_class = getattr(form, "required_css_class", "required")
        return cast("forms.BaseForm", form)

    def _token(self) -> str:
        token = self.request.POST.get("token", "")
        return token if _TOKEN.fullmatch(token) else new_token()

    def _encoded(self, form: forms.BaseForm) -> str | None:
        """Return the JSON of what was typed, or None if the form has errors now."""
        if not form.is_valid():
            return None
        try:
            return encode(to_publish(form))
        except InvalidData as error:
            form.add_error(None, explain(error))
        return None

    def _prefilled(self) -> tuple[forms.BaseForm, str]:
        """Return the form filled in from a stored event, and what to say about that."""
        try:
            event, said = self._model()
        except StoreError as error:
            text = gettext("Stored events cannot be read now: %(reason)s")
            return self._form(), text % {"reason": error}
        if event is None:
            return self._form(), said
        if issubclass(self.form_class, JsonForm):
            return self._form(initial={"json": pretty(event.data)}), said
        form, filled = fill_in(self._form, event.data)
        return form, said if filled else ""

    def _model(self) -> tuple[Event | None, str]:
        """Return the stored event that the form is filled in from, if any, and why that one."""
        again = self.request.GET.get("again")
        if again:
            event = self._again(again)
            said = gettext("Filled in from event %(seq)s, “%(name)s”.")
            if event is None:
                said = gettext("The event that was to be published again is not kept any more.")
        else:
            events = history.newest(str(self.topic), LOOKED_AT)
            same = [event for event in events if event.name == self.name]
            event = next(iter([*same, *events]), None)
            said = gettext("Filled in from the last “%(name)s” of this topic, event %(seq)s.")
            if event is None:
                said = gettext("This topic has no stored events to begin from.")
            elif not same:
                said = gettext(
                    "Filled in from this topic's last event, %(seq)s, “%(name)s”: among its last "
                    "%(count)s there is none of this name."
                )
        values = {} if event is None else {"seq": event.seq, "name": event.name}
        return event, said % (values | {"count": LOOKED_AT})

    def _again(self, cursor: str) -> Event | None:
        try:
            return history.find(str(self.topic), Cursor.parse(cursor))
        except InvalidCursor:
            return None

    # The answers

    def _ask(self, form: forms.BaseForm, said: str = "") -> HttpResponse:
        focus_first_error(form)
        context = {
            "form": form,
            "note": said,
            "token": self._token(),
            "asks_again": str(self.topic) == EVERYONE,
        }
        return self._render("data", context)

    def _confirm(self, text: str) -> HttpResponse:
        """Ask before everyone gets it; what was posted is posted again, field by field."""
        typed = [
            (key, value)
            for key, values in self.request.POST.lists()
            if key.startswith(f"{DATA_PREFIX}-")
            for value in values
        ]
        context = {"typed": typed, "token": self._token(), "data": pretty(json.loads(text))}
        return self._render("confirm", context)

    def _render(self, template: str, context: dict[str, Any]) -> HttpResponse:
        edit = self.admin.link("add", self.query | {"edit": 1})
        context |= {
            "title": gettext("Publish an event"),
            "event_name": self.name,
            "topic": self.topic,
            "user_name": self.query.get("user"),
            "audience": audience_of(self.topic),
            "edit_url": edit,
        }
        crumbs = [
            (self.admin.link("changelist"), gettext("Events")),
            (edit, gettext("Publish an event")),
        ]
        return self.admin.render(self.request, template, context, crumbs, self.label)

    def _tell(self, level: int, said: str, url: str, text: str) -> None:
        link = format_html('{} <a href="{}">{}</a>', said, url, text)
        messages.add_message(self.request, level, link)

    def _say(self, event: Event | None) -> None:
        """Tell what went out, and write it into the admin's log."""
        if event is None:
            said = gettext("Goes out when the transaction is committed: %(event)s.")
            messages.success(self.request, said % {"event": self.label})
        else:
            said = gettext("Published: %(event)s, number %(seq)s, cursor %(cursor)s.") % {
                "event": self.label,
                "seq": event.seq,
                "cursor": event.cursor,
            }
            url = self.admin.link_to(event)
            self._tell(messages.SUCCESS, said, url, gettext("Show the event"))
        if not note(self.request, str(self.topic), self.name, event):
            messages.warning(
                self.request,
                gettext(
                    "The event is out, but could not be written to the admin's log. Do not publish "
                    "it again."
                ),
            )


def audience_of(topic: Topic) -> str:
    """Return a sentence or two: the connections that follow a topic, and who is on it.

    Where the store cannot tell, it says that; publishing may work all the same.
    """
    try:
        followers = followers_of(str(topic))
        members = len(get_store().members(log_of(topic)).members) if topic.presence else None
    except StoreError as error:
        text = gettext("How many connections follow it cannot be told now: %(reason)s")
        return text % {"reason": error}
    said = [_followers(followers)]
    if members is not None:
        text = ngettext("%(count)d member is there.", "%(count)d members are there.", members)
        said.append(text % {"count": members})
    return " ".join(said)


def _followers(followers: Followers) -> str:
    count = followers.count
    values = {"count": count, "seconds": int(BEAT_SECONDS)}
    if not followers.is_exact:
        text = ngettext(
            "At least %(count)d connection follows it: a process follows too many topics to tell "
            "of each.",
            "At least %(count)d connections follow it: a process follows too many topics to tell "
            "of each.",
            count,
        )
    elif not count:
        text = gettext("No connection follows it, as of up to %(seconds)d seconds ago.")
    else:
        text = ngettext(
            "%(count)d connection follows it, as of up to %(seconds)d seconds ago.",
            "%(count)d connections follow it, as of up to %(seconds)d seconds ago.",
            count,
        )
    return text % values


class AlreadyPublished(Exception):
    """The same form was sent with the same data within the last hour."""


def new_token() -> str:
    """Return what makes a form one of its kind."""
    return secrets.token_urlsafe(16)


def publish_once(topic: Topic, name: str, text: str, token: str) -> Event | None:
    """Publish an event that was encoded already, unless this form published the same before.

    The store knows that, so it holds for two requests at the same time too: a double click, or a
    POST that a browser repeats because no answer came.

    Returns:
        The event, or None if the caller is in a transaction for whose commit it waits.

    Raises:
        AlreadyPublished: it is out; do not try again.
        PublishError: it is not out; the same may be tried again.
    """
    if in_any_transaction():
        return publish(topic, name, json.loads(text))
    # With the data in it: who goes back in the browser and corrects them publishes a new event.
    digest = hashlib.sha256("\n".join((token, name, text)).encode()).hexdigest()[:40]
    draft = Draft(name, text, id=f"admin-{digest}")
    appended = append(topic, [draft])
    if not appended.events:
        raise AlreadyPublished
    return appended.events[0]
