"""Publish what a form was sent with, once, though the form be sent twice."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

from realtime.protocol.events import Draft, Event
from realtime.publishing import append, in_any_transaction, publish

if TYPE_CHECKING:
    from realtime.topics import Topic

__all__ = ["AlreadyPublished", "new_token", "publish_once"]


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
