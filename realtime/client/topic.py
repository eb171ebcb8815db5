"""One topic on the connection: its place, and the events that nobody has taken yet.

A queue that is full does not stop the connection, which carries other topics and answers: the
topic is left, and asked for again from its place when half of the queue is free.
So memory is bounded, and nothing is lost that the log keeps.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from realtime.client.commands import Commands
from realtime.client.connector import Backoff
from realtime.client.links import Frame
from realtime.exceptions import CommandRefused, EventsLost
from realtime.protocol.events import Cursor, Event, Member

__all__ = ["Following", "Item", "Members", "read_member"]


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


Item: TypeAlias = Event | EventsLost | Members


class Following:
    """One topic; used on one event loop.

    Args:
        topic: the topic's name.
        start: ``since`` or ``last``, or neither for what comes from now on.
        max_queue: events that wait at most.
        wants_members: the reader wants to be told when there are other members.
        commands: the way to the server.
        forget: called once, when it ends.

    Attributes:
        cursor: the place after what was handed out last; None until the server has said one.
        members: who is on the topic, as far as the server told.
        abandoned: nobody holds the subscription any more.
    """

    def __init__(
        self,
        topic: str,
        start: Frame,
        max_queue: int,
        wants_members: bool,
        commands: Commands,
        forget: Callable[[Following], None],
    ) -> None:
        self.topic = topic
        self.cursor: Cursor | None = None
        self.members = Members()
        self.abandoned = False
        self._start = start
        self._max_queue = max_queue
        self._wants_members = wants_members
        self._commands = commands
        self._forget = forget
        self._place: Cursor | None = None  # after the newest event that was queued
        self._items: deque[Item] = deque()
        self._changed = asyncio.Event()
        self._is_up = False
        self._is_live = False
        self._paused = False
        self._over = False
        self._error: Exception | None = None
        self._attempt = object()  # of the newest subscribe; an answer to an older one is void
        self._retries = Backoff()
        self._retry: asyncio.TimerHandle | None = None

    # The reader's side

    async def begun(self) -> None:
        """Wait until the server follows the topic.

        Raises:
            Exception: what ended it.
        """
        while self._place is None and not self._over:
            await self._change()
        if self._error is not None and self._place is None:
            raise self._error

    async def next(self) -> Item | None:
        """Return what is next; None at the end.

        Nothing is lost if it is cancelled.

        Raises:
            Exception: what ended it, after all that came before.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            await self._change()
        item = self._items.popleft()
        if not isinstance(item, Members):
            self.cursor = item.cursor or self.cursor
        if self._paused and len(self._items) <= self._max_queue // 2:
            self._paused = False
            if self._is_up:
                self._subscribe()
        return item

    def put_back(self, item: Item) -> None:
        """Let ``next()`` return it again."""
        if item not in self._items:  # of members there is one list, the newest
            self._items.appendleft(item)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def leave(self) -> None:
        """Follow the topic no more and drop what waits."""
        self._items.clear()
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """End it: after what waits, the reader gets the error, or the end of the iteration."""
        if self._over:
            return
        self._leave()
        self._over, self._error = True, error
        self._changed.set()
        self._forget(self)

    # The connection's side

    def up(self) -> None:
        """Follow: there is a connection."""
        self._is_up = True
        self._retries.reset()
        if not self._paused:
            self._subscribe()

    def down(self) -> None:
        """Wait: it broke."""
        self._is_up = False
        self._stop()

    def _stop(self) -> None:
        """Take no event until the next answer."""
        self._is_live = False
        self._attempt = object()
        self.members.interrupt()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _leave(self) -> None:
        if self._is_up and not self._paused:
            self._commands.request({"type": "unsubscribe", "topic": self.topic}, lambda _: None)
        self._stop()

    def _subscribe(self) -> None:
        self._attempt = attempt = object()
        start = self._start if self._place is None else {"since": str(self._place)}

        def answered(frame: Frame | None) -> None:
            if attempt is not self._attempt or frame is None:
                return
            if frame["type"] == "subscribed":
                self._subscribed(frame)
            else:
                self._refused(frame)

        self._commands.request({"type": "subscribe", "topic": self.topic, **start}, answered)

    def _subscribe_later(self) -> None:
        def again() -> None:
            self._retry = None
            self._subscribe()

        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(self._retries.next(), again)

    def _subscribed(self, frame: Frame) -> None:
        self._is_live = True
        is_first = self._place is None
        self._place = Cursor.parse(frame["cursor"])
        if frame.get("recovered") is False:
            self._lose("")
        elif is_first:
            self.cursor = self._place
        if self._wants_members and self.members.list is None:
            self._check_presence()
        self._changed.set()

    def _check_presence(self) -> None:
        """End it if the topic keeps no presence, so that nobody waits for ever to be told."""

        def answered(frame: Frame | None) -> None:
            if frame is not None and frame.get("code") == "unsupported":
                self.end(CommandRefused("unsupported", f"{self.topic}: {frame.get('message')}"))

        self._commands.request({"type": "members", "topic": self.topic}, answered)

    def _refused(self, error: Frame) -> None:
        code, message = str(error.get("code")), str(error.get("message", ""))
        if code == "already_subscribed":  # the unsubscribe before it was refused
            self._repair()
        elif error.get("retry") is True:
            self._subscribe_later()
        else:
            self._is_up = False  # there is nothing to leave
            self.end(CommandRefused(code, f"{self.topic}: {message}"))

    def receive(self, frame: Frame) -> None:
        """Take a frame about this topic that answers nothing."""
        if not self._is_live:
            return  # of a subscription before this one
        match frame["type"]:
            case "event":
                self._event(frame)
            case "reset":
                self._place = Cursor.parse(frame["cursor"])
                self._lose(str(frame.get("reason", "")))
            case "members" | "join" | "leave":
                self._presence(frame)
            case "unsubscribed":
                self._is_up = False  # it was left already
                reason = str(frame.get("reason"))
                said = frame.get("message") or "the server ended the subscription"
                self.end(CommandRefused(reason, f"{self.topic}: {said}"))

    def _event(self, frame: Frame) -> None:
        cursor = None
        if "cursor" in frame:
            cursor, place = Cursor.parse(frame["cursor"]), self._place
            assert place is not None
            if cursor.epoch == place.epoch and cursor.seq <= place.seq:
                return
            if (cursor.epoch, cursor.seq) != (place.epoch, place.seq + 1):
                self._repair()
                return
        if len(self._items) >= self._max_queue:
            if cursor is not None:
                self._leave()
                self._paused = True
            return  # an event that is in no log arrives at most once
        if cursor is not None:
            self._place = cursor
            self._retries.reset()
        data = json.dumps(frame.get("data"), ensure_ascii=False, separators=(",", ":"))
        time, origin = frame.get("time"), frame.get("origin")
        self._items.append(Event(self.topic, str(frame["event"]), data, cursor, time, origin))
        self._changed.set()

    def _presence(self, frame: Frame) -> None:
        if not self.members.continues(frame):
            self._repair()  # a new subscription begins with the list
        elif self.members.receive(frame) and self._wants_members:
            if self.members not in self._items:
                self._items.append(self.members)
            self._changed.set()

    def _repair(self) -> None:
        """Ask for everything after the last event: one is missing."""
        self._leave()
        self._subscribe_later()

    def _lose(self, reason: str) -> None:
        """Queue that events are missing; two holes with nothing between them are one."""
        assert self._place is not None
        if self._items and isinstance(self._items[-1], EventsLost):
            self._items.pop()
        self._items.append(EventsLost(self.topic, self._place, reason))
        self._changed.set()
