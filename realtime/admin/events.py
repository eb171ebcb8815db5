"""The admin pages: publish an event, and show stored events.

The model ``LogEvent`` supplies only the name, the entry in the admin's index and the permissions.
The events are read through the store's interface, so the pages work with every store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import Http404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext

from realtime.admin import history, pages
from realtime.admin.actions import PERMISSION
from realtime.admin.entries import label, object_id, parse_object_id, recently_used
from realtime.admin.forms import SearchForm
from realtime.admin.jsontext import pretty
from realtime.admin.publishing import DataPage, TargetPage
from realtime.exceptions import InvalidTopicName, StoreError, UnknownTopic
from realtime.topics import patterns, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from realtime.models import LogEvent
    from realtime.protocol.events import Event

    _Base = admin.ModelAdmin[LogEvent]
else:
    _Base = admin.ModelAdmin

__all__ = ["EventAdmin"]

TOPICS_LISTED = 100
EVENTS_LISTED = 100
FOLDED_LENGTH = 300  # characters; a list folds longer data
SHOWN_LENGTH = 4_000  # characters; a list cuts longer data, the event's own page shows all
VIEW_PERMISSION = "realtime.view_logevent"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def _resolved(topic: str) -> str | None:
    """Return a topic's name; None if no pattern matches it."""
    try:
        return str(resolve(topic))
    except (UnknownTopic, InvalidTopicName):
        return None


class EventAdmin(_Base):
    """Publish events and show stored ones.

    Users with ``realtime.publish_event`` see all pages; users with ``realtime.view_logevent`` see
    the stored events.
    For another ``AdminSite``, call ``site.register(LogEvent, EventAdmin)``.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user can publish."""
        return request.user.has_perm(PERMISSION)

    def has_view_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Return whether the user can see stored events; every user who can publish can."""
        return request.user.has_perm(PERMISSION) or request.user.has_perm(VIEW_PERMISSION)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the admin's index shows these pages."""
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Return False: published events do not change."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Return False: a log has no gaps, so no event can be deleted from it."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of these pages only; their views run outside a transaction."""

        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            def wrapper(*args: Any, **kwargs: Any) -> HttpResponse:
                return self.admin_site.admin_view(view)(*args, **kwargs)

            wrapper.model_admin = self  # type: ignore[attr-defined] # as in Django
            update_wrapper(wrapper, view)
            # In a transaction, the page could not show the cursor of the event it published, and
            # waiting for the store would keep the transaction open.
            for alias in connections:
                transaction.non_atomic_requests(using=alias)(wrapper)
            return wrapper

        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", wrap(self.changelist_view), name=f"{name}_changelist"),
            path("add/", wrap(self.add_view), name=f"{name}_add"),
            path("<path:object_id>/change/", wrap(self.change_view), name=f"{name}_change"),
        ]

    # The pages

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Publish an event."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        target = TargetPage(self, request)
        if not target.is_done():
            return target.respond()
        return DataPage(self, request, target.form).respond()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List the newest events of all topics, those that match the query, or of one topic."""
        self._require_view(request)
        form = SearchForm(request.GET)
        entered = request.GET.get("topic", "").strip()
        context: dict[str, Any] = {"title": gettext("Events"), "entered": entered, "form": form}
        context |= self.suggestions()
        topic = _resolved(entered)
        others = any(request.GET.get(name) for name in ("event", "since", "until"))
        try:
            if not form.is_valid() and (form.has_error("since") or form.has_error("until")):
                context["error"] = gettext("Enter times such as 2026-11-24 18:30.")
            elif topic and not others:
                context |= self._events(request, topic)
            else:
                context |= self._found(form, topic)
                if not (entered or others):
                    context["topics"], context["more"] = history.topic_names(TOPICS_LISTED)
                elif not (context["events"] or topic or others):
                    context["error"] = gettext("This site has no topic with this name.")
        except StoreError as error:
            context["error"] = history.unreadable(error)
        breadcrumbs = [(self.link("changelist"), gettext("Events"))] if entered else []
        return self.render(request, "events", context, breadcrumbs, entered or gettext("Events"))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        """Show one event, or a message if it is no longer stored."""
        self._require_view(request)
        parsed = parse_object_id(unquote(object_id))
        if parsed is None:
            raise Http404(f"{object_id!r} is not the id of an event")
        topic, cursor = parsed
        try:
            resolve(topic)
        except (UnknownTopic, InvalidTopicName) as error:
            raise Http404(f"this site has no topic {topic!r}") from error
        context: dict[str, Any] = {"topic": topic, "cursor": cursor, "title": gettext("Event")}
        context["another_url"] = self.link("add", {"topic": topic, "edit": 1})
        try:
            event = history.find(topic, cursor)
            if event is not None:
                context |= {"event": self._event(event), "title": label(topic, event.name)}
        except StoreError as error:
            context["error"] = history.unreadable(error)
        breadcrumbs = [
            (self.link("changelist"), gettext("Events")),
            (self.link("changelist", {"topic": topic}), topic),
        ]
        return self.render(request, "event", context, breadcrumbs, context["title"])

    # Shared by the pages

    def link(self, page: str, query: Mapping[str, Any] | None = None, *args: object) -> str:
        """Return the URL of one of these pages on this admin site."""
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}"
        url = reverse(name, args=args, current_app=self.admin_site.name)
        return f"{url}?{urlencode(query)}" if query else url

    def link_to(self, event: Event) -> str:
        """Return the URL of a stored event's page."""
        return self.link("change", None, quote(object_id(event)))

    def render(
        self,
        request: HttpRequest,
        template: str,
        context: Mapping[str, Any],
        breadcrumbs: list[tuple[str, str]],
        page_name: str,
    ) -> HttpResponse:
        """Render a template, with the context that all of these pages need."""
        shared = {
            "may_publish": self.has_add_permission(request),
            "events_url": self.link("changelist"),
            "publish_url": self.link("add"),
        }
        full_context = shared | {**context}
        return pages.render(self, request, template, full_context, breadcrumbs, page_name)

    def suggestions(self) -> dict[str, Any]:
        """Return template context: the patterns, and suggested topics and event names."""
        recent, names = recently_used()
        known = [pattern.text for pattern, _ in patterns()]
        # A suggestion inserts the text of a pattern up to its first <value>.
        hints = [(text.partition("<")[0] or text, text) for text in known if text not in recent]
        declared = {
            name
            for _, topic in patterns()
            for name in (*topic.admin_forms, *topic.stored_client_events)
        }
        return {
            "patterns": known,
            "suggested_topics": [(name, "") for name in recent] + hints,
            "suggested_names": [*names, *sorted(declared - set(names))],
        }

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _found(self, form: SearchForm, topic: str | None) -> dict[str, Any]:
        """Return the template context of a search over all topics, or in one of them."""
        wanted = form.cleaned_data
        found: list[Event] = []
        if form.is_valid():  # no name contains a character that a field refuses
            found = history.search(
                EVENTS_LISTED,
                topic=topic or wanted["topic"],
                exact=topic is not None,
                name=wanted["event"],
                since=wanted["since"],
                until=wanted["until"],
            )
        return {
            "across": True,
            "events": [self._event(event, SHOWN_LENGTH) for event in found],
            "searched": any(wanted.values()) or not form.is_valid(),
        }

    def _events(self, request: HttpRequest, topic: str) -> dict[str, Any]:
        before = request.GET.get("before", "")
        number = int(before) if _NUMBER.fullmatch(before) else None
        window = history.window(topic, EVENTS_LISTED, number)
        context: dict[str, Any] = {
            "topic": topic,
            "events": [self._event(event, SHOWN_LENGTH) for event in reversed(window.events)],
            "kept": window.kept,
            "newest": number is None,
            "publish_url": self.link("add", {"topic": topic, "edit": 1}),
        }
        if window.older:
            query = {"topic": topic, "before": window.events[0].seq}
            context["older_url"] = self.link("changelist", query)
        return context

    def _event(self, event: Event, length: int | None = None) -> dict[str, Any]:
        """Return the template context of an event; ``length`` limits its data in a list."""
        data = pretty(event.data)
        again = {"topic": event.topic, "event": event.name, "again": event.cursor}
        return {
            "topic": event.topic,
            "name": event.name,
            "seq": event.seq,
            "time": timezone.localtime(datetime.fromtimestamp(event.time or 0, UTC)),
            "cursor": event.cursor,
            "data": data if length is None else data[:length],
            "is_cut": length is not None and len(data) > length,
            "is_folded": length is not None and len(data) > FOLDED_LENGTH,
            "url": self.link_to(event),
            "again_url": self.link("add", again),
        }
