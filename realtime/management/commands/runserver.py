"""``manage.py runserver`` with Daphne, which serves WebSockets and event streams."""

from __future__ import annotations

from daphne.management.commands.runserver import Command as DaphneCommand

__all__ = ["Command"]


class Command(DaphneCommand):  # type: ignore[misc]
    """Daphne's runserver.

    If several apps have the same command, Django uses that of the first in ``INSTALLED_APPS``, so
    list ``realtime`` first. ``daphne`` need not be listed at all.
    """

    help = "Starts Daphne for development: HTTP, WebSockets and event streams in one process."
