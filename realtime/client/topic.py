"""The subscription to one topic on the connection: its cursor and its queue of unread events.

A full queue does not block the connection, which is shared with other topics and commands.
Instead, the client unsubscribes, and resumes from its cursor when half of the queue has been read.
This bounds memory, and loses no event that the log still has.
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

__all__ = ["Item", "Members", "SharedSubscription", "read_member"]


def read_member(fields: dict[str, Any]) -> Member:
    """Return the member that a frame describes."""
    return Member(str(fields["id"]), fields.get("user"), fields.get("info"))


class Members:
    """The members of a topic, updated from ``members``, ``join`` and ``leave`` frames."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._version: int | None = None  # of the list; None before the first list arrives
        self._count: int | None = None  # of members that the server does not list
        self._partial: dict[str, Member] = {}  # a new list, still without its last frames
        self._partial_version: int | None = None

    @property
    def list(self) -> list[Member] | None:
        """The members in the order in which they joined; None before the first list arrives."""
        return None if self._version is None else [*self._members.values()]

    @property
    def count(self) -> int | None:
        """The number of members; None before the first list, or the first number, arrives."""
        if self._version is None:
            return None
        return len(self._members) if self._count is None else self._count

    def discard_partial(self) -> None:
        """Discard a list whose remaining frames will not arrive."""
        self._partial, self._partial_version = {}, None

    def is_contiguous(self, frame: Frame) -> bool:
        """Return whether no change is missing before this frame; always True for a list."""
        if frame["type"] == "members" or self._version is None:
            return True
        return int(frame["version"]) <= self._version + 1

    def receive(self, frame: Frame) -> bool:
        """Process a ``members``, ``join`` or ``leave`` frame; return whether the list changed."""
        version = int(frame["version"])
        if frame["type"] == "members":
            return self._receive_list(frame, version)
        if self._version is None or version <= self._version:
            return False  # the list has not arrived yet, or already contains the change
        self._version = version
        member = read_member(frame["member"])
        if frame["type"] == "join":
            self._members[member.id] = member
        else:
            self._members.pop(member.id, None)
        return True

    def _receive_list(self, frame: Frame, version: int) -> bool:
        if version != self._partial_version:
            self._partial, self._partial_version = {}, version
        self._partial |= {member.id: member for member in map(read_member, frame["members"])}
        if frame.get("more"):
            return False
        count: int | None = frame.get("count")
        has_changed = self._version is None or self._members != self._partial
        has_changed = has_changed or count != self._count
        self._members, self._version, self._count = self._partial, version, count
        self.discard_partial()
        return has_changed


Item: TypeAlias = Event | EventsLost | Members


class SharedSubscription:
    """The subscription to a topic; it survives reconnects.

    The connection and the reader share this object: the connection adds events to the queue, and
    the reader's ``Subscription`` takes them from there.
    It belongs to one event loop.

    Args:
        topic: the topic's name.
        start: the field ``since`` or ``last`` of the first subscribe; empty for new events only.
        max_queue: maximum number of queued events.
        wants_members: whether the reader wants to receive changed member lists.
        commands: sends the commands to the server.
        forget: called once, when the subscription is closed.

    Attributes:
        topic: the topic's name.
        cursor: the cursor of the event that the reader took last; None until subscribed.
        members: the members of the topic.
        abandoned: True once the reader has dropped its ``Subscription``.
    """

    def __init__(
        self,
        topic: str,
        start: Frame,
        max_queue: int,
        wants_members: bool,
        commands: Commands,
        forget: Callable[[SharedSubscription], None],
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
        self._queued_cursor: Cursor | None = None  # of the newest queued event: resume from here
        self._items: deque[Item] = deque()  # the queue
        self._changed = asyncio.Event()
        self._is_connected = False
        self._is_live = False  # the server has answered the newest subscribe
        self._is_paused = False  # unsubscribed until the reader has emptied half of the queue
        self._closed = False
        self._error: Exception | None = None
        self._attempt = object()  # identifies the newest subscribe; older answers are ignored
        self._retries = Backoff()
        self._retry_timer: asyncio.TimerHandle | None = None

    # For the reader

    async def wait_subscribed(self) -> None:
        """Wait until the server has confirmed the subscription.

        Raises:
            Exception: the error that closed the subscription.
        """
        while self._queued_cursor is None and not self._closed:
            await self._wait_for_change()
        if self._error is not None and self._queued_cursor is None:
            raise self._error

    async def next(self) -> Item | None:
        """Wait for the next item of the queue and return it; return None at the end.

        A cancelled call loses no item.

        Raises:
            Exception: the error that closed the subscription, once the queue is empty.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            await self._wait_for_change()
        item = self._items.popleft()
        if not isinstance(item, Members):
            self.cursor = item.cursor or self.cursor
        if self._is_paused and len(self._items) <= self._max_queue // 2:
            self._is_paused = False
            if self._is_connected:
                self._subscribe()
        return item

    def put_back(self, item: Item) -> None:
        """Put an item back, so that ``next()`` returns it again."""
        if item not in self._items:  # the queue holds at most one member list
            self._items.appendleft(item)

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def unsubscribe(self) -> None:
        """Unsubscribe and discard the queue."""
        self._items.clear()
        self.close(None)

    def close(self, error: Exception | None) -> None:
        """Close the subscription; once the queue is empty, the reader gets the error, if any."""
        if self._closed:
            return
        self._send_unsubscribe()
        self._closed, self._error = True, error
        self._changed.set()
        self._forget(self)

    # For the connection

    def up(self) -> None:
        """Subscribe over a new connection."""
        self._is_connected = True
        self._retries.reset()
        if not self._is_paused:
            self._subscribe()

    def down(self) -> None:
        """Wait for the next connection."""
        self._is_connected = False
        self._stop_receiving()

    def _stop_receiving(self) -> None:
        """Ignore events until the next subscribe is answered."""
        self._is_live = False
        self._attempt = object()
        self.members.discard_partial()
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    def _send_unsubscribe(self) -> None:
        if self._is_connected and not self._is_paused:
            self._commands.request({"type": "unsubscribe", "topic": self.topic}, lambda _: None)
        self._stop_receiving()

    def _subscribe(self) -> None:
        self._attempt = attempt = object()
        start = self._start if self._queued_cursor is None else {"since": str(self._queued_cursor)}

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
            self._retry_timer = None
            self._subscribe()

        loop = asyncio.get_running_loop()
        self._retry_timer = loop.call_later(self._retries.next(), again)

    def _subscribed(self, frame: Frame) -> None:
        self._is_live = True
        is_first = self._queued_cursor is None
        self._queued_cursor = Cursor.parse(frame["cursor"])
        if frame.get("recovered") is False:
            self._queue_loss("")
        elif is_first:
            self.cursor = self._queued_cursor
        if self._wants_members and self.members.list is None:
            self._check_presence()
        self._changed.set()

    def _check_presence(self) -> None:
        """Close the subscription if the topic tracks no presence: no member list would arrive."""

        def answered(frame: Frame | None) -> None:
            if frame is not None and frame.get("code") == "unsupported":
                self.close(CommandRefused("unsupported", f"{self.topic}: {frame.get('message')}"))

        self._commands.request({"type": "members", "topic": self.topic}, answered)

    def _refused(self, error: Frame) -> None:
        code, message = str(error.get("code")), str(error.get("message", ""))
        if code == "already_subscribed":  # the preceding unsubscribe was refused
            self._repair()
        elif error.get("retry") is True:
            self._subscribe_later()
        else:
            self._is_connected = False  # so that close() sends no unsubscribe
            self.close(CommandRefused(code, f"{self.topic}: {message}"))

    def receive(self, frame: Frame) -> None:
        """Process a frame of this topic that is not an answer."""
        if not self._is_live:
            return  # it belongs to an earlier subscribe
        match frame["type"]:
            case "event":
                self._event(frame)
            case "reset":
                self._queued_cursor = Cursor.parse(frame["cursor"])
                self._queue_loss(str(frame.get("reason", "")))
            case "members" | "join" | "leave":
                self._presence(frame)
            case "unsubscribed":
                self._is_connected = False  # so that close() sends no unsubscribe
                reason = str(frame.get("reason"))
                message = frame.get("message") or "the server ended the subscription"
                self.close(CommandRefused(reason, f"{self.topic}: {message}"))

    def _event(self, frame: Frame) -> None:
        cursor = None
        if "cursor" in frame:
            cursor, newest = Cursor.parse(frame["cursor"]), self._queued_cursor
            assert newest is not None
            if cursor.epoch == newest.epoch and cursor.seq <= newest.seq:
                return
            if (cursor.epoch, cursor.seq) != (newest.epoch, newest.seq + 1):
                self._repair()
                return
        if len(self._items) >= self._max_queue:
            if cursor is not None:
                self._send_unsubscribe()
                self._is_paused = True
            return  # an ephemeral event, which has no cursor, is lost
        if cursor is not None:
            self._queued_cursor = cursor
            self._retries.reset()
        data = json.dumps(frame.get("data"), ensure_ascii=False, separators=(",", ":"))
        time, origin = frame.get("time"), frame.get("origin")
        self._items.append(Event(self.topic, str(frame["event"]), data, cursor, time, origin))
        self._changed.set()

    def _presence(self, frame: Frame) -> None:
        if not self.members.is_contiguous(frame):
            self._repair()  # after a new subscribe, the server sends the whole list
        elif self.members.receive(frame) and self._wants_members:
            if self.members not in self._items:
                self._items.append(self.members)
            self._changed.set()

    def _repair(self) -> None:
        """Unsubscribe, and soon subscribe again from the newest queued event."""
        self._send_unsubscribe()
        self._subscribe_later()

    def _queue_loss(self, reason: str) -> None:
        """Queue an ``EventsLost``; it replaces an ``EventsLost`` at the end of the queue."""
        assert self._queued_cursor is not None
        if self._items and isinstance(self._items[-1], EventsLost):
            self._items.pop()
        self._items.append(EventsLost(self.topic, self._queued_cursor, reason))
        self._changed.set()
