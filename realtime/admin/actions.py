"""``PublishAdminMixin``: publish for the rows that are selected in a list of the admin."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from realtime.admin import pages
from realtime.admin.entries import EVERYONE, label
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
SHOWN = 20  # objects that a message lists

logger = logging.getLogger("realtime")


class PublishAdminMixin(_Base):
    """Give a ``ModelAdmin`` the action "Publish selected …".

    ::

        @admin.register(Order)
        class OrderAdmin(PublishAdminMixin, admin.ModelAdmin):
            def get_publication(self, obj):
                return OrderTopic(pk=obj.pk), "changed", {"state": obj.state}

    It needs the permission ``realtime.publish_event`` and writes each object's history.

    Raises:
        TypeError: it stands behind ``ModelAdmin``, where its action would be missing.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__
        if admin.ModelAdmin in bases[: bases.index(PublishAdminMixin)]:
            raise TypeError(
                f"{cls.__qualname__}: PublishAdminMixin stands before the ModelAdmin: "
                f"class {cls.__name__}(PublishAdminMixin, admin.ModelAdmin)"
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # None turns all actions of a ModelAdmin off.
        if self.actions is not None and ACTION not in self.actions:
            self.actions = [*self.actions, ACTION]

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Report a class that does not say what it publishes."""
        messages = super().check(**kwargs)
        if type(self).get_publication is PublishAdminMixin.get_publication:
            messages.append(
                checks.Error(
                    f"{type(self).__qualname__} uses PublishAdminMixin and has no "
                    "get_publication().",
                    hint="Write: def get_publication(self, obj): return topic, name, data",
                    obj=type(self),
                    id="realtime.E020",
                )
            )
        return messages

    def get_publication(self, obj: Any) -> Publication | None:
        """Return ``(topic, name, data)`` of what is published for an object, or None for nothing.

        Raises:
            ImproperlyConfigured: the class does not say; write this method.
        """
        raise ImproperlyConfigured(
            f"{type(self).__qualname__} has to say what it publishes: "
            "def get_publication(self, obj): return topic, name, data"
        )

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Tell whether the action is offered."""
        return request.user.has_perm(PERMISSION)

    @admin.action(
        description=_("Publish selected %(verbose_name_plural)s"), permissions=["publish"]
    )
    def publish_selected(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Publish one event for each of the objects that has one, and say what went out.

        Before everyone gets one of them, a page asks.
        """
        found = [(obj, self.get_publication(obj)) for obj in queryset]
        wanted = [(obj, publication) for obj, publication in found if publication is not None]
        events: Sequence[Event] | None = ()
        try:
            if "confirmed" not in request.POST and (question := self._question(request, found)):
                return question
            if wanted:
                events = publish_many([publication for _, publication in wanted])
        except PublishError as error:
            # A topic's events are appended all or none.
            topics = {event.topic for event in error.published}
            out = [each for each in wanted if str(each[1][0]) in topics]
            missing = [obj for obj, publication in wanted if str(publication[0]) not in topics]
            self._note(request, out, error.published)
            self._say_broken(request, len(out), missing, error)
        except RealtimeError as error:
            reason = explain(error) if isinstance(error, InvalidData) else str(error)
            text = gettext("Nothing was published: %(reason)s") % {"reason": reason}
            self.message_user(request, escape_surrogates(text), messages.ERROR)
        else:
            self._note(request, wanted, events)
            self._say(request, events, len(wanted), len(found) - len(wanted))
        return None

    def _question(
        self, request: HttpRequest, found: Sequence[tuple[Model, Publication | None]]
    ) -> HttpResponse | None:
        """Return the page that asks, or None if nothing goes to everyone."""
        wanted = [publication for _, publication in found if publication is not None]
        reaching = [each for each in wanted if str(each[0]) == EVERYONE]
        if not reaching:
            return None
        here = gettext("Publish to everyone")
        context = {
            "title": here,
            "action": ACTION,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "selected": [obj.pk for obj, _ in found],
            "reaching": len(reaching),
            "shown": [
                (label(topic, name), pretty(json.loads(encode(data))))
                for topic, name, data in reaching[:SHOWN]
            ],
            "more": max(len(reaching) - SHOWN, 0),
            "others": len(wanted) - len(reaching),
            "back_url": request.get_full_path(),
        }
        crumbs = [(request.path, capfirst(str(self.opts.verbose_name_plural)))]
        return pages.render(self, request, "confirm_selected", context, crumbs, here)

    def _note(
        self,
        request: HttpRequest,
        published: Sequence[tuple[Model, Publication]],
        events: Sequence[Event] | None,
    ) -> None:
        """Write the history of each object."""
        try:
            for number, (obj, (topic, name, _data)) in enumerate(published):
                text = gettext("Published: %(event)s") % {"event": label(topic, name)}
                if events is not None:
                    text += f" ({events[number].cursor})"
                self.log_change(request, obj, text)
        except DatabaseError:
            if events is None:
                raise  # they wait for the transaction, which is broken now
            logger.exception("events were published that the admin's log has no entries of")
            self.message_user(
                request,
                gettext("The events are out, but could not be written to the history."),
                messages.WARNING,
            )

    def _say(
        self, request: HttpRequest, events: Sequence[Event] | None, count: int, skipped: int
    ) -> None:
        if events is None:
            text = ngettext(
                "%(count)d event goes out when this change is saved.",
                "%(count)d events go out when this change is saved.",
                count,
            )
        else:
            text = ngettext(
                "%(count)d event was published.", "%(count)d events were published.", count
            )
        said = text % {"count": count}
        if events is not None and count == 1:
            [event] = events
            said = gettext("Published: %(event)s, cursor %(cursor)s.") % {
                "event": label(event.topic, event.name),
                "cursor": event.cursor,
            }
        if skipped:
            said += " " + ngettext(
                "For %(count)d object there was nothing to publish.",
                "For %(count)d objects there was nothing to publish.",
                skipped,
            ) % {"count": skipped}
        self.message_user(request, said, messages.SUCCESS if count else messages.WARNING)

    def _say_broken(
        self, request: HttpRequest, count: int, missing: Sequence[Model], error: PublishError
    ) -> None:
        text = ngettext(
            "%(count)d event was published. Not published: %(objects)s. %(reason)s",
            "%(count)d events were published. Not published: %(objects)s. %(reason)s",
            count,
        )
        shown = [str(obj) for obj in missing[:SHOWN]] + ["…"] * (len(missing) > SHOWN)
        said = text % {"count": count, "objects": ", ".join(shown), "reason": error.reason}
        self.message_user(request, said, messages.ERROR)
