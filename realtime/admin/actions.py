"""``PublishAdminMixin``: an action that publishes an event for each selected object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from realtime.admin import pages
from realtime.admin.entries import (
    ENTRY_ERRORS,
    EVERYONE,
    entry_label,
    entry_savepoint,
    label,
    missing_entries_warning,
)
from realtime.admin.forms import explain
from realtime.admin.jsontext import escape_surrogates, pretty
from realtime.exceptions import InvalidData, PublishError, RealtimeError
from realtime.publishing import encode, publish_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse

    from realtime.protocol.events import Event
    from realtime.topics import Topic

    Publication = tuple[Topic | str, str, Any]
    _Base = admin.ModelAdmin[Any]
else:
    _Base = object

__all__ = ["PERMISSION", "PublishAdminMixin"]

PERMISSION = "realtime.publish_event"
ACTION = "publish_selected"
SHOWN = 20  # objects or events that a message or a page lists at most


class PublishAdminMixin(_Base):
    """Give a ``ModelAdmin`` the action "Publish selected …".

    ::

        @admin.register(Order)
        class OrderAdmin(PublishAdminMixin, admin.ModelAdmin):
            def get_publication(self, obj):
                return OrderTopic(pk=obj.pk), "changed", {"state": obj.state}

    The action needs the permission ``realtime.publish_event`` and adds an entry to each object's
    history.

    Raises:
        TypeError: the mixin comes after ``ModelAdmin`` in the base classes, so its action would be
            missing.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__
        if admin.ModelAdmin in bases[: bases.index(PublishAdminMixin)]:
            raise TypeError(
                f"{cls.__qualname__}: PublishAdminMixin must come before ModelAdmin. Write: "
                f"class {cls.__name__}(PublishAdminMixin, admin.ModelAdmin)"
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # actions = None disables all actions.
        if self.actions is not None and ACTION not in self.actions:
            self.actions = [*self.actions, ACTION]

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Report a class without ``get_publication()``."""
        messages = super().check(**kwargs)
        if type(self).get_publication is PublishAdminMixin.get_publication:
            messages.append(
                checks.Error(
                    f"{type(self).__qualname__} uses PublishAdminMixin but does not define "
                    "get_publication().",
                    hint="Write: def get_publication(self, obj): return topic, name, data",
                    obj=type(self),
                    id="realtime.E020",
                )
            )
        return messages

    def get_publication(self, obj: Any) -> Publication | None:
        """Return the event to publish for an object: ``(topic, name, data)``, or None for no event.

        Raises:
            ImproperlyConfigured: the class does not define this method.
        """
        raise ImproperlyConfigured(
            f"{type(self).__qualname__} does not define get_publication(). Write: "
            "def get_publication(self, obj): return topic, name, data"
        )

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Return whether the user can use the action."""
        return request.user.has_perm(PERMISSION)

    @admin.action(
        description=_("Publish selected %(verbose_name_plural)s"), permissions=["publish"]
    )
    def publish_selected(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Publish the event of each selected object that has one, and report the result.

        If an event goes to everyone, the action first shows a page that asks for confirmation.
        """
        selected = [(obj, self.get_publication(obj)) for obj in queryset]
        pending = [(obj, publication) for obj, publication in selected if publication is not None]
        events: Sequence[Event] | None = ()
        try:
            if "confirmed" not in request.POST and (page := self._confirmation(request, selected)):
                return page
            if pending:
                events = publish_many([publication for _, publication in pending])
        except PublishError as error:
            # publish_many() appends either all events of a topic or none.
            topics = {event.topic for event in error.published}
            published = [each for each in pending if str(each[1][0]) in topics]
            missing = [obj for obj, publication in pending if str(publication[0]) not in topics]
            self._log_published(request, published, error.published)
            self._report_failure(request, len(published), missing, error)
        except RealtimeError as error:
            reason = explain(error) if isinstance(error, InvalidData) else str(error)
            text = gettext("Nothing was published: %(reason)s") % {"reason": reason}
            self.message_user(request, escape_surrogates(text), messages.ERROR)
        else:
            self._log_published(request, pending, events)
            self._report(request, events, len(pending), len(selected) - len(pending))
        return None

    def _confirmation(
        self, request: HttpRequest, selected: Sequence[tuple[Model, Publication | None]]
    ) -> HttpResponse | None:
        """Return the page that asks for confirmation, or None if no event goes to everyone."""
        publications = [publication for _, publication in selected if publication is not None]
        to_everyone = [each for each in publications if str(each[0]) == EVERYONE]
        if not to_everyone:
            return None
        title = gettext("Publish to everyone")
        context = {
            "title": title,
            "action": ACTION,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "selected": [obj.pk for obj, _ in selected],
            "to_everyone": len(to_everyone),
            "shown": [
                (label(topic, name), pretty(json.loads(encode(data))))
                for topic, name, data in to_everyone[:SHOWN]
            ],
            "more": max(len(to_everyone) - SHOWN, 0),
            "others": len(publications) - len(to_everyone),
            "back_url": request.get_full_path(),
        }
        breadcrumbs = [(request.path, capfirst(str(self.opts.verbose_name_plural)))]
        return pages.render(self, request, "confirm_selected", context, breadcrumbs, title)

    def _log_published(
        self,
        request: HttpRequest,
        published: Sequence[tuple[Model, Publication]],
        events: Sequence[Event] | None,
    ) -> None:
        """Add an entry to the history of each object."""
        try:
            with entry_savepoint():
                for number, (obj, (topic, name, _data)) in enumerate(published):
                    text = gettext("Published: %(event)s") % {"event": entry_label(topic, name)}
                    if events is not None:
                        text += f" ({events[number].cursor})"
                    self.log_change(request, obj, text)
        except ENTRY_ERRORS:
            labels = [label(topic, name) for _, (topic, name, _data) in published]
            self.message_user(request, missing_entries_warning(labels), messages.WARNING)

    def _report(
        self, request: HttpRequest, events: Sequence[Event] | None, count: int, skipped: int
    ) -> None:
        if events is None:
            text = ngettext(
                "%(count)d event will be published when the transaction is committed.",
                "%(count)d events will be published when the transaction is committed.",
                count,
            )
        else:
            text = ngettext(
                "%(count)d event was published.", "%(count)d events were published.", count
            )
        message = text % {"count": count}
        if events is not None and count == 1:
            [event] = events
            message = gettext("Published: %(event)s, cursor %(cursor)s.") % {
                "event": label(event.topic, event.name),
                "cursor": event.cursor,
            }
        if skipped:
            message += " " + ngettext(
                "%(count)d object had nothing to publish.",
                "%(count)d objects had nothing to publish.",
                skipped,
            ) % {"count": skipped}
        self.message_user(request, message, messages.SUCCESS if count else messages.WARNING)

    def _report_failure(
        self, request: HttpRequest, count: int, missing: Sequence[Model], error: PublishError
    ) -> None:
        text = ngettext(
            "%(count)d event was published. Not published: %(objects)s. %(reason)s",
            "%(count)d events were published. Not published: %(objects)s. %(reason)s",
            count,
        )
        objects = [str(obj) for obj in missing[:SHOWN]] + ["…"] * (len(missing) > SHOWN)
        values = {"count": count, "objects": ", ".join(objects), "reason": error.reason}
        self.message_user(request, text % values, messages.ERROR)
