"""The presence of a topic that this process follows, and the subscriptions to it.

The presence log is a log like any other: wake-ups, repair, head checks and the ring buffer are
those of ``LiveTopic``.
Only the frames for the clients differ: first the member list, then joins and leaves. A client that
has fallen behind further than the ring buffer reaches, or that would be reset on another log,
receives the member list again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from realtime.hub.recent import EventFrame, Pieces
from realtime.hub.subscribers import BaseSubscription
from realtime.hub.topic import LiveTopic
from realtime.presence import member_id, member_text
from realtime.protocol.encoders import Frame, bundle
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import Reset, members_frames
from realtime.protocol.names import presence_log
from realtime.stores.base import JOIN, MemberList

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.hub.hub import Hub
    from realtime.topics import Topic

__all__ = ["LivePresence", "PresenceSubscription", "hold_member"]

RING_CHANGES = 256  # joins and leaves that a client can miss without receiving the whole list


class MemberFrame(EventFrame):
    """The frame of a join or a leave.

    Attributes:
        is_join: True for a join, False for a leave.
        uid: the member's id.
        member: the member's JSON text.
    """

    __slots__ = ("is_join", "member", "uid")

    def __init__(self, topic: str, event: Event, cursor: Cursor) -> None:
        text = (
            f'{{"type":{json.dumps(event.name)},"topic":{json.dumps(topic)},'
            f'"member":{event.json},"version":{cursor.seq}}}'
        )
        Frame.__init__(self, text)  # without a cursor: a client's cursor in the topic stays
        self.cursor = cursor
        self.is_join = event.name == JOIN
        self.member = event.json
        self.uid: str = event.data["id"]


class LivePresence(LiveTopic):
    """The members of a topic, as of the position in its presence log.

    Attributes:
        topic: the topic's name; ``name`` is that of the presence log.
        members: the JSON text of each member by its id.
    """

    def __init__(self, hub: Hub, topic: str) -> None:
        super().__init__(hub, presence_log(topic), RING_CHANGES)
        self.topic = topic
        self.members: dict[str, str] = {}
        self._list_frames: Sequence[Frame] | None = None  # of current members; None until made

    async def where_to_start(self, head: Cursor) -> Cursor:
        """Read the members, and return the position that the list belongs to."""
        return self._set_members(await self.hub.store.amembers(self.name))

    def _set_members(self, member_list: MemberList) -> Cursor:
        self.members = dict(member_list.members)
        self._list_frames = None
        return member_list.cursor

    def make_frame(self, event: Event, cursor: Cursor) -> EventFrame:
        """Encode a join or a leave."""
        return MemberFrame(self.topic, event, cursor)

    def list_frames(self) -> Sequence[Frame]:
        """Return the frames of the member list, cached until the list changes."""
        if self._list_frames is None:
            texts = list(self.members.values())
            frames = members_frames(self.topic, texts, self.position.seq)
            self._list_frames = [Frame(text) for text in frames]
        return self._list_frames

    def _deliver(self, frame: EventFrame) -> None:
        assert isinstance(frame, MemberFrame)
        self._list_frames = None
        if frame.is_join:
            self.members[frame.uid] = frame.member
        else:
            self.members.pop(frame.uid, None)
        super()._deliver(frame)

    async def _reset(self, head: Cursor, reason: Reset) -> None:
        """Read the members again, and push the list to all live subscribers."""
        self.hub.member_writer.check(self.name)
        member_list = await self.hub.store.amembers(self.name)
        self.push_batch()
        before = self.position
        self._restart(self._set_members(member_list))
        self.push_reset(bundle(self.list_frames()), before)
        self._deliver_early()


async def hold_member(
    live: LivePresence, topic: Topic, user: Any, page: str | None, hold: float | None
) -> None:
    """Keep a member on a topic for ``hold`` seconds without a subscription.

    For the arguments see ``PresenceSubscription``.
    """
    if hold is not None and (member := await _member_of(live, topic, user, page)) is not None:
        live.hub.member_writer.arrive(live.name, *member)
        live.hub.member_writer.leave(live.name, member[0], hold)


async def _member_of(
    live: LivePresence, topic: Topic, user: Any, page: str | None
) -> tuple[str, str] | None:
    """Return a member's id and JSON text; ask the project unless the member is connected here."""
    if page is None and (user is None or not user.is_authenticated):
        return None
    uid = member_id(user, page or "")
    return uid, live.hub.member_writer.text_of(live.name, uid) or await member_text(
        topic, user, uid
    )


class PresenceSubscription(BaseSubscription):
    """A client's subscription to a topic's presence; usually the client is a member as well.

    Call ``prepare()``, then ``start()``.

    Attributes:
        list_frames: how many frames of the member list ``start()`` has pushed.
    """

    __slots__ = ("_has_started", "_hold", "_member", "_page", "_project_topic", "list_frames")

    topic: LivePresence

    def __init__(
        self,
        connection: Connection,
        topic: Topic,
        live: LivePresence,
        hold: float | None,
        page: str | None,
    ) -> None:
        """Take over the follower that ``Hub.follow_presence()`` added; ``end()`` releases it.

        Args:
            connection: the client's.
            topic: the project's topic, whose ``member_info`` describes the member.
            live: the topic's presence.
            hold: seconds that the member stays after the connection's end; None if the client is
                not a member.
            page: identifies a client that is not signed in; None if such a client is not a member.
        """
        super().__init__(connection, live)
        self.list_frames = 0
        self._project_topic = topic
        self._page = page
        self._hold = hold
        self._member: tuple[str, str] | None = None  # id and JSON text
        self._has_started = False

    @property
    def cursor(self) -> Cursor | None:
        """The cursor in the presence log up to which the client has received the changes."""
        self.topic.queue_pending()
        return self.topic.position if self in self.topic.live else self.position

    async def prepare(self) -> None:
        """Look up the member that others will see."""
        if self._hold is not None:
            user = self.connection.user
            self._member = await _member_of(self.topic, self._project_topic, user, self._page)

    def start(self, since: Cursor | None = None, *, at_once: bool = False) -> None:
        """Join, then send the member list, or the changes since a cursor that is still buffered.

        Args:
            since: the cursor up to which the client already has the changes; None to send the list.
            at_once: write the whole list at once, as a poll's answer needs it. If the answer has no
                room for the list, nothing is sent, and ``cursor`` stays None.
        """
        if self.ended:
            return
        self._has_started = True
        if self._member is not None:
            self.topic.hub.member_writer.arrive(self.topic.name, *self._member)
        if since is None or self.topic.recent(since) is None:
            frames = self.topic.list_frames()
            if at_once:
                if not self.writer.write_list(frames):
                    return
            elif not all(map(self.push, frames)):
                self._advance()
                return
            self.list_frames, since = len(frames), self.topic.position
        self.position = since
        self._advance()

    def end(self) -> None:
        """Unsubscribe, and count one connection fewer for the member. Idempotent."""
        if self.ended:
            return
        self.position = self.cursor
        super().end()
        if self._has_started and self._member is not None and self._hold is not None:
            self.topic.hub.member_writer.leave(self.topic.name, self._member[0], self._hold)

    async def _missing(self) -> Pieces:
        recent = None if self.position is None else self.topic.recent(self.position)
        if recent is not None:
            return recent.singles
        # The position moves only when the whole list was sent.
        *first, last = self.topic.list_frames()
        return [*((frame, self.position) for frame in first), (last, self.topic.position)]
