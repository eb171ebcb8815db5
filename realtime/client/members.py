"""Who is on a topic, as the server's frames tell it."""

from __future__ import annotations

from typing import Any

from realtime.client.links import Frame
from realtime.protocol.events import Member

__all__ = ["Members", "read_member"]


def read_member(fields: dict[str, Any]) -> Member:
    """Return a member of a frame."""
    return Member(str(fields["id"]), fields.get("user"), fields.get("info"))


class Members:
    """The list of a topic's members; empty-handed until it was told once."""

    def __init__(self) -> None:
        self._all: dict[str, Member] = {}
        self._version: int | None = None  # of the last change that is in the list
        self._coming: dict[str, Member] = {}  # a list of which parts are still to come
        self._coming_version: int | None = None

    @property
    def list(self) -> list[Member] | None:
        """The members in the order in which they came; None as long as nobody told."""
        return None if self._version is None else [*self._all.values()]

    def interrupt(self) -> None:
        """Give up a list whose other parts will not come."""
        self._coming, self._coming_version = {}, None

    def continues(self, frame: Frame) -> bool:
        """Tell whether nothing is missing before a join or leave; a list misses nothing."""
        if frame["type"] == "members" or self._version is None:
            return True
        return int(frame["version"]) <= self._version + 1

    def receive(self, frame: Frame) -> bool:
        """Take a ``members``, ``join`` or ``leave``; return whether it made a difference."""
        version = int(frame["version"])
        if frame["type"] == "members":
            return self._list(frame, version)
        if self._version is None or version <= self._version:
            return False  # the list is still to come, or has it already
        self._version = version
        member = read_member(frame["member"])
        if frame["type"] == "join":
            self._all[member.id] = member
        else:
            self._all.pop(member.id, None)
        return True

    def _list(self, frame: Frame, version: int) -> bool:
        if version != self._coming_version:
            self._coming, self._coming_version = {}, version
        self._coming |= {member.id: member for member in map(read_member, frame["members"])}
        if frame.get("more"):
            return False
        is_news = self._version is None or self._all != self._coming
        self._all, self._version = self._coming, version
        self.interrupt()
        return is_news
