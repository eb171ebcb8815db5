"""The channel layer's three tables on one database alias.

``LayerInbox``
    A process that reads: a row with a lease of a minute, which it renews every 20 seconds.
``LayerMember``
    A channel in a group, and the address that its messages go to.
``LayerMessage``
    A letter that waits at an address.

Every time in them is the database's clock, read where the row is written or compared: processes
whose clocks differ lose nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.apps import apps
from django.db.models import Model, QuerySet

__all__ = ["LayerRows"]


class LayerRows:
    """The rows of all processes.

    Models are looked up at first use: the layer may be made before ``django.setup()`` is through.

    Args:
        using: the database alias.
    """

    def __init__(self, using: str) -> None:
        self.using = using

    @cached_property
    def inbox_model(self) -> type[Model]:
        """The model of inboxes."""
        return apps.get_model("realtime", "LayerInbox")

    @cached_property
    def member_model(self) -> type[Model]:
        """The model of members."""
        return apps.get_model("realtime", "LayerMember")

    @cached_property
    def message_model(self) -> type[Model]:
        """The model of letters."""
        return apps.get_model("realtime", "LayerMessage")

    @property
    def inboxes(self) -> QuerySet[Any]:
        """All inboxes."""
        return self.inbox_model._default_manager.using(self.using)

    @property
    def members(self) -> QuerySet[Any]:
        """All members of all groups."""
        return self.member_model._default_manager.using(self.using)

    @property
    def messages(self) -> QuerySet[Any]:
        """All letters that wait."""
        return self.message_model._default_manager.using(self.using)
