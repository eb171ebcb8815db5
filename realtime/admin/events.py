"""The pages of the admin: publish an event, look at stored ones.

They hang on the model ``LogEvent`` for its name, its place in the index and its permissions alone:
what they show comes through the store, so that it is the same on every store.
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
from realtime.admin.entries import label, object_id, read_object_id, recently_used
from realtime.admin.jsontext import pretty
from realtime.admin.publishing import AddressPage, DataPage
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
FOLDED = 300  # characters of data that stand open in a list; longer ones unfold
CUT = 4_000  # characters of data in a list; the event's own page has all
VIEW_PERMISSION = "realtime.view_logevent"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class EventAdmin(_Base):
    """Publishing and reading for those who may.

    ``realtime.publish_event`` opens all pages, ``realtime.view_logevent`` those that read.
    For another ``AdminSite``: ``site.register(LogEvent, EventAdmin)``.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may publish."""
        return request.user.has_perm(PERMISSION)

    def has_view_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Tell whether the user may read; who publishes sees the last event anyway."""
        return request.user.has_perm(PERMISSION) or request.user.has_perm(VIEW_PERMISSION)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Tell whether the index shows these pages."""
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Nobody changes what was published."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogEvent | None = None) -> bool:
        """Nobody takes an event out of a log, which has no holes."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Serve these pages alone, outside of any transaction."""

        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            def wrapper(*args: Any, **kwargs: Any) -> HttpResponse:
                return self.admin_site.admin_view(view)(*args, **kwargs)

            wrapper.model_admin = self  # type: ignore[attr-defined] # as Django's own
            update_wrapper(wrapper, view)
            # The page names the cursor of what it has published; and a store must not be waited
            # for while a transaction is open.
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
        address = AddressPage(self, request)
        if not address.is_done():
            return address.respond()
        return DataPage(self, request, address.form).respond()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Choose a topic, and show its newest events."""
        self._require_view(request)
        wanted = request.GET.get("topic", "").strip()
        context: dict[str, Any] = {"title": gettext("Events"), "wanted": wanted}
        context |= self.suggestions()
        try:
            if wanted:
                context |= self._events(request, str(resolve(wanted)))
            else:
                context["topics"], context["more"] = history.names(TOPICS_LISTED)
        except (UnknownTopic, InvalidTopicName):
            context["wrong"] = gettext("No topic of this site has this name.")
        except StoreError as error:
            context["wrong"] = gettext("The events cannot be read now: %(reason)s") % {
                "reason": error
            }
        crumbs = [(self.link("changelist"), gettext("Events"))] if wanted else []
        return self.render(request, "events", context, crumbs, wanted or gettext("Events"))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        """Show one stored event, or say that it is not kept any more."""
        self._require_view(request)
        found = read_object_id(unquote(object_id))
        if found is None:
            raise Http404(f"{object_id!r} leads to no event")
        topic, cursor = found
        try:
            resolve(topic)
        except (UnknownTopic, InvalidTopicName) as error:
            raise Http404(f"{topic!r} is no topic of this site") from error
        context: dict[str, Any] = {"topic": topic, "cursor": cursor, "title": gettext("Event")}
        try:
            event = history.find(topic, cursor)
            if event is not None:
                context |= {"event": self._row(request, event), "title": label(topic, event.name)}
        except StoreError as error:
            context["wrong"] = gettext("The events cannot be read now: %(reason)s") % {
                "reason": error
            }
        crumbs = [
            (self.link("changelist"), gettext("Events")),
            (self.link("changelist", {"topic": topic}), topic),
        ]
        return self.render(request, "event", context, crumbs, context["title"])

    # What they share

    def link(self, page: str, query: Mapping[str, Any] | None = None, *args: object) -> str:
        """Return the address of one of these pages on this admin's site."""
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}"
        address = reverse(name, args=args, current_app=self.admin_site.name)
        return f"{address}?{urlencode(query)}" if query else address

    def link_to(self, event: Event) -> str:
        """Return the address of a stored event's page."""
        return self.link("change", None, quote(object_id(event)))

    def render(
        self,
        request: HttpRequest,
        template: str,
        context: Mapping[str, Any],
        crumbs: list[tuple[str, str]],
        here: str,
    ) -> HttpResponse:
        """Return a page inside of the admin's frame."""
        own = {
            "may_publish": self.has_add_permission(request),
            "events_url": self.link("changelist"),
            "publish_url": self.link("add"),
        }
        return pages.render(self, request, template, own | {**context}, crumbs, here)

    def suggestions(self) -> dict[str, Any]:
        """Return what the fields for topics and names of events propose."""
        recent, names = recently_used()
        known = [pattern.text for pattern, _ in patterns()]
        # Up to its first value a pattern's text is typed as it stands.
        hints = [(text.partition("<")[0] or text, text) for text in known if text not in recent]
        offered = {
            name
            for _, topic in patterns()
            for name in (*topic.admin_forms, *topic.stored_client_events)
        }
        return {
            "patterns": known,
            "suggested_topics": [(name, "") for name in recent] + hints,
            "suggested_names": [*names, *sorted(offered - set(names))],
        }

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _events(self, request: HttpRequest, topic: str) -> dict[str, Any]:
        before = request.GET.get("before", "")
        number = int(before) if _NUMBER.fullmatch(before) else None
        found = history.window(topic, EVENTS_LISTED, number)
        context: dict[str, Any] = {
            "topic": topic,
            "events": [self._row(request, event, CUT) for event in reversed(found.events)],
            "kept": found.kept,
            "newest": number is None,
            "publish_url": self.link("add", {"topic": topic, "edit": 1}),
        }
        if found.older:
            query = {"topic": topic, "before": found.events[0].seq}
            context["older_url"] = self.link("changelist", query)
        return context

    def _row(self, request: HttpRequest, event: Event, cut: int | None = None) -> dict[str, Any]:
        data = pretty(event.data)
        again = {"topic": event.topic, "event": event.name, "again": event.cursor}
        return {
            "name": event.name,
            "seq": event.seq,
            "time": timezone.localtime(datetime.fromtimestamp(event.time or 0, UTC)),
            "cursor": event.cursor,
            "data": data if cut is None else data[:cut],
            "cut": cut is not None and len(data) > cut,
            "long": cut is not None and len(data) > FOLDED,
            "url": self.link_to(event),
            "again_url": self.link("add", again),
        }
