"""The admin's own log: who published what."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.apps import apps
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError
from django.utils.translation import gettext

from realtime.exceptions import InvalidCursor
from realtime.protocol.events import Cursor, Event

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["EVERYONE", "label", "note", "object_id", "read_object_id", "recently_used"]

EVERYONE = "everyone"  # the topic that is published to after a question only

logger = logging.getLogger("realtime")

_LOOKED_AT = 200  # entries that are looked through for names that were used recently
_SUGGESTED = 20


def object_id(event: Event) -> str:
    """Return what leads from an entry of the admin's log back to the event."""
    return f"{event.topic}/{event.cursor}"


def read_object_id(text: str) -> tuple[str, Cursor] | None:
    """Return the topic's name and the cursor that ``object_id()`` has put together."""
    topic, _, cursor = text.rpartition("/")
    try:
        return topic, Cursor.parse(cursor)
    except InvalidCursor:
        return None


def label(topic: object, name: str) -> str:
    """Return how an event is called in the admin."""
    return f"{name} → {topic}"


def note(request: HttpRequest, topic: str, name: str, event: Event | None) -> bool:
    """Write down who published what; return False if that failed, which is logged.

    The event is out by then, so nothing is raised.

    An event that is None waits for a commit, so that nothing leads back to it yet.
    """
    where = gettext("Published to %(topic)s") % {"topic": topic}
    try:
        LogEntry.objects.create(
            user_id=str(request.user.pk),
            content_type=_content_type(),
            object_id=None if event is None else object_id(event),
            object_repr=label(topic, name)[:200],
            action_flag=ADDITION,
            change_message=where if event is None else f"{where} ({event.cursor})",
        )
    except DatabaseError:
        logger.exception("%s was published, but the admin's log has no entry of it", topic)
        return False
    return True


def recently_used() -> tuple[list[str], list[str]]:
    """Return topics and names of events that were last published in the admin, newest first."""
    entries = LogEntry.objects.filter(content_type=_content_type()).order_by("-action_time")
    topics: dict[str, None] = {}
    names: dict[str, None] = {}
    for identity, said in entries.values_list("object_id", "object_repr")[:_LOOKED_AT]:
        found = read_object_id(identity or "")
        if found is not None:
            topics.setdefault(found[0])
            names.setdefault(said.partition(" → ")[0])
    return list(topics)[:_SUGGESTED], list(names)[:_SUGGESTED]


def _content_type() -> ContentType:
    return ContentType.objects.get_for_model(apps.get_model("realtime", "LogEvent"))
