"""Entries in the admin log: who published what."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.apps import apps
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, router, transaction
from django.utils.translation import gettext, ngettext

from realtime.exceptions import InvalidCursor
from realtime.protocol.events import Cursor, Event

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = [
    "ENTRY_ERRORS",
    "EVERYONE",
    "entry_label",
    "entry_savepoint",
    "label",
    "missing_entries_warning",
    "object_id",
    "parse_object_id",
    "recently_used",
    "write_entry",
]

EVERYONE = "everyone"  # the topic that needs a confirmation before an event is published to it

# What writing an entry can raise; some drivers encode the text before the database sees it.
ENTRY_ERRORS = (DatabaseError, UnicodeError)

logger = logging.getLogger("realtime")

_ENTRIES_READ = 200  # newest entries that are searched for recently used topics and event names
_SUGGESTIONS = 20


def object_id(event: Event) -> str:
    """Return the object id with which a log entry refers to an event."""
    return f"{event.topic}/{event.cursor}"


def parse_object_id(text: str) -> tuple[str, Cursor] | None:
    """Return the topic name and cursor of an object id; None if the text is not an object id."""
    topic, _, cursor = text.rpartition("/")
    try:
        return topic, Cursor.parse(cursor)
    except InvalidCursor:
        return None


def label(topic: object, name: str) -> str:
    """Return an event's label in the admin, such as ``shipped → orders.42``."""
    return f"{name} → {topic}"


def entry_label(topic: object, name: str) -> str:
    """Return an event's label in the admin log, such as ``shipped -> orders.42``.

    It is ASCII, because a database can have an old character set such as latin1.
    """
    return f"{name} -> {topic}"


def entry_savepoint() -> transaction.Atomic:
    """Return a savepoint for log entries: if they fail, the request's transaction can go on."""
    return transaction.atomic(using=router.db_for_write(LogEntry))


def write_entry(request: HttpRequest, topic: str, name: str, event: Event | None) -> None:
    """Log that the request's user published an event.

    Args:
        request: the request that published the event.
        topic: the topic's name.
        name: the event's name.
        event: the event, or None if it waits for a commit; the entry then has no link to it.

    Raises:
        ENTRY_ERRORS: the entry was not written, but the event was published, or will be with the
            commit of the request's transaction, which can go on.
    """
    message = gettext("Published to %(topic)s") % {"topic": topic}
    with entry_savepoint():
        LogEntry.objects.create(
            user_id=str(request.user.pk),
            content_type=_content_type(),
            object_id=None if event is None else object_id(event),
            object_repr=entry_label(topic, name)[:200],
            action_flag=ADDITION,
            change_message=message if event is None else f"{message} ({event.cursor})",
        )


def missing_entries_warning(labels: Sequence[str]) -> str:
    """Log the current exception, and return a warning for the user.

    Call it in the ``except`` block of a failed ``write_entry()``.

    Args:
        labels: the labels of the events that were published.
    """
    logger.exception("published, but not written to the admin log: %s", ", ".join(labels))
    return ngettext(
        "The event was published, but the admin log entry could not be written. Do not publish it "
        "again.",
        "The events were published, but their admin log entries could not be written. Do not "
        "publish them again.",
        len(labels),
    )


def recently_used() -> tuple[list[str], list[str]]:
    """Return the topics and event names last published in the admin, newest first."""
    entries = LogEntry.objects.filter(content_type=_content_type()).order_by("-action_time")
    topics: dict[str, None] = {}
    names: dict[str, None] = {}
    for identity, text in entries.values_list("object_id", "object_repr")[:_ENTRIES_READ]:
        parsed = parse_object_id(identity or "")
        if parsed is not None:
            topics.setdefault(parsed[0])
            names.setdefault(text.partition(" ")[0])
    return list(topics)[:_SUGGESTIONS], list(names)[:_SUGGESTIONS]


def _content_type() -> ContentType:
    return ContentType.objects.get_for_model(apps.get_model("realtime", "LogEvent"))
