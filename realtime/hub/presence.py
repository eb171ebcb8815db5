"""The presence of a topic that this process follows, and a connection that is told of it.

The presence log is a log like any other: wake-ups, repair, head checks and the ring are those of
``LiveTopic``.
What differs is what a client sees of it: first who is there, then joins and leaves; and where
a log's client would be reset or has fallen behind further than the ring, who is there anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from realtime.hub.recent import EventFrame
from realtime.hub.topic import LiveTopic
from realtime.presence import member_id, member_text
from realtime.protocol.encoders import Frame, bundle
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import CloseCode, Reset, members_frames
from realtime.protocol.names import presence_log
from realtime.stores.base import JOIN, MemberList
from realtime.writers.asgi import SlowReader

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.hub.hub import Hub
    from realtime.topics import Topic

__all__ = ["LivePresence", "PresenceSubscription", "visit"]

logger = logging.getLogger("realtime")

RING_CHANGES = 256  # joins and leaves that a client may miss without being told the whole list


class MemberFrame(EventFrame):
    """The frame of a join or a leave.

    Attributes:
        is_join: or a leave.
        uid: the member's id.
        member: its JSON text.
    """

    __slots__ = ("is_join", "member", "uid")

    def __init__(self, topic: str, event: Event, cursor: Cursor) -> None:
        text = (
            f'{{"type":{json.dumps(event.name)},"topic":{json.dumps(topic)},'
            f'"member":{event.json},"version":{cursor.seq}}}'
        )
        Frame.__init__(self, text)  # no place: it is of no topic that a client can resume
        self.cursor = cursor
        self.is_join = event.name == JOIN
        self.member = event.json
        self.uid: str = event.data["id"]


class LivePresence(LiveTopic):
    """Who is on a topic, as far as its presence log was followed."""

    def __init__(self, hub: Hub, topic: str) -> None:
        super().__init__(hub, presence_log(topic), RING_CHANGES)
        self.topic = topic
        self.members: dict[str, str] = {}
        self._frames: Sequence[Frame] | None = None

    async def where_to_start(self, head: Cursor) -> Cursor:
        """Read who is there, which is where to begin."""
        return self._fill(await self.hub.store.amembers(self.name))

    def _fill(self, roster: MemberList) -> Cursor:
        self.members = dict(roster.members)
        self._frames = None
        return roster.cursor

    def make_frame(self, event: Event, cursor: Cursor) -> EventFrame:
        """Encode a join or a leave."""
        return MemberFrame(self.topic, event, cursor)

    def frames(self) -> Sequence[Frame]:
        """Return the frames that tell who is there; encoded once for all who ask."""
        if self._frames is None:
            texts = list(self.members.values())
            self._frames = [Frame(t) for t in members_frames(self.topic, texts, self.position.seq)]
        return self._frames

    def _deliver(self, frame: EventFrame) -> None:
        assert isinstance(frame, MemberFrame)
        self._frames = None
        if frame.is_join:
            self.members[frame.uid] = frame.member
        else:
            self.members.pop(frame.uid, None)
        super()._deliver(frame)

    async def _reset(self, head: Cursor, reason: Reset) -> None:
        """Read who is there, and tell everybody anew."""
        self.hub.member_writer.check(self.name)
        roster = await self.hub.store.amembers(self.name)
        self.spread()
        before = self.position
        self._restart(self._fill(roster))
        self.spread_over(bundle(self.frames()), before)
        self._deliver_early()


async def visit(
    live: LivePresence, topic: Topic, user: Any, page: str | None, hold: float | None
) -> None:
    """Be on a topic for a while, without being told anything; see ``PresenceSubscription``."""
    if hold is not None and (member := await _member_of(live, topic, user, page)) is not None:
        live.hub.member_writer.arrive(live.name, *member)
        live.hub.member_writer.leave(live.name, member[0], hold)


async def _member_of(
    live: LivePresence, topic: Topic, user: Any, page: str | None
) -> tuple[str, str] | None:
    """Return id and JSON text of a member; asks the project, unless it is here already."""
    if page is None and (user is None or not user.is_authenticated):
        return None
    uid = member_id(user, page or "")
    return uid, live.hub.member_writer.text_of(live.name, uid) or await member_text(
        topic, user, uid
    )


class PresenceSubscription:
    """A connection that is told who is on a topic, and is one of them."""

    __slots__ = (
        "_connection",
        "_ended",
        "_has_begun",
        "_hold",
        "_member",
        "_page",
        "_position",
        "_task",
        "_topic",
        "live",
        "told",
        "writer",
    )

    def __init__(
        self,
        connection: Connection,
        topic: Topic,
        live: LivePresence,
        hold: float | None,
        page: str | None,
    ) -> None:
        """Take over one follower of the presence, which ``end()`` gives back.

        Args:
            connection: whose.
            topic: on which it is.
            live: the topic's presence.
            hold: seconds that the member stays after the connection's end; None: is no member.
            page: what a visitor who is not signed in is known by; None: is told, and is no member.
        """
        self.live = live
        self._topic = topic
        self._page = page
        self._member: tuple[str, str] | None = None
        self.told = 0  # frames that told who is there, when it began
        self.writer = connection.writer
        self._connection = connection
        self._hold = hold
        self._position: Cursor | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = self._has_begun = False

    @property
    def place(self) -> Cursor | None:
        """The place in the presence log up to which the client was told."""
        self.live.hand_out()  # what was not written yet, it was not told
        return self.live.position if self in self.live.live else self._position

    async def prepare(self) -> None:
        """Find out what others will see."""
        user = self._connection.user
        if self._hold is not None:
            self._member = await _member_of(self.live, self._topic, user, self._page)

    def begin(self, place: Cursor | None = None, *, at_once: bool = False) -> None:
        """Be there, and tell who is, or what has changed since a place that the ring still has.

        Args:
            place: up to where the client was told before; None if it was not.
            at_once: write the list whole, for an answer that nobody reads before it is finished;
                nothing is told, and ``place`` stays None, if its writer has no room for lists.
        """
        if self._ended:
            return
        self._has_begun = True
        if self._member is not None:
            self.live.hub.member_writer.arrive(self.live.name, *self._member)
        if place is None or self.live.recent(place) is None:
            frames = self.live.frames()
            if at_once:
                if not self._connection.writer.take_list(frames):
                    return
            elif not all(map(self._connection.push, frames)):
                self._advance()
                return
            self.told, place = len(frames), self.live.position
        self._position = place
        self._advance()

    def push(self, frame: Frame) -> bool:
        """Take a join or a leave; False if the connection's buffer is full."""
        return self._connection.push(frame)

    def fall_behind(self, position: Cursor) -> None:
        """Go on after this place, when the client has read what it has."""
        self._position = position
        self._advance()

    def end(self) -> None:
        """Hear no more, and be one connection less of the member's. Once is enough."""
        if self._ended:
            return
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        self._position = self.place
        self.live.dismiss(self)
        hub = self.live.hub
        if self._has_begun and self._member is not None and self._hold is not None:
            hub.member_writer.leave(self.live.name, self._member[0], self._hold)
        hub.release(self.live)

    @property
    def catching_up(self) -> asyncio.Task[None] | None:
        """The task that tells what the client lacks; None if it lacks nothing."""
        return None if self._task is None or self._task.done() else self._task

    def _advance(self) -> None:
        if self._ended:
            return
        if self._position == self.live.position:
            self.live.admit(self)
        else:
            self._task = self.live.hub.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._catch_up()
        except SlowReader:
            self._connection.close(CloseCode.SLOW)
        except Exception:
            logger.exception("telling who is on %s failed", self.live.topic)
            self._connection.close(CloseCode.FAILED)

    async def _catch_up(self) -> None:
        """Tell as fast as the client reads; then go live in the turn in which nothing lacks."""
        connection = self._connection
        while not connection.writer.closed:
            place, frames = self._missing()
            for frame in frames:
                await connection.push_paced(frame)
                if isinstance(frame, MemberFrame):
                    self._position = frame.cursor
            self._position = place
            await connection.drained()
            if self._position == self.live.position:
                self.live.admit(self)
                return

    def _missing(self) -> tuple[Cursor, Sequence[Frame]]:
        recent = None if self._position is None else self.live.recent(self._position)
        return self.live.position, self.live.frames() if recent is None else recent.frames
