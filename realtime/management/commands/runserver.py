"""``manage.py runserver`` with Daphne, so that clients can connect to it."""

from __future__ import annotations

from daphne.management.commands.runserver import Command as DaphneCommand

__all__ = ["Command"]


class Command(DaphneCommand):  # type: ignore[misc]
    """Daphne's runserver.

    Django takes a command from the first app that has it, so ``realtime`` stands first in
    ``INSTALLED_APPS`` and ``daphne`` need not be there at all.
    """

    help = "Starts Daphne for development: HTTP, WebSockets and event streams in one process."
