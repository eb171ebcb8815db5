"""The presence of a topic that this process follows, and the subscriptions to it.

The presence log is a log like any other: wake-ups, repair, head checks and the ring buffer are
those of ``LiveTopic``.
Only the frames for the clients differ: first the member list, then joins and leaves. A client that
has fallen behind further than the ring buffer reaches, or that would be reset on another log,
receives the member list again.

If every client received each change, n members that come and go would cost n * n frames. So the
clients of a topic with more than ``LIMITS["members"]`` members receive only the number of members,
at most once a second, and the list again when it has shrunk to nine tenths of the limit.
The number is exact: the presence log has one join and one leave for each member.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from realtime.exceptions import StoreError
from realtime.hub.recent import EventFrame, Frames, Pieces
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
COUNT_SECONDS = 1.0  # between two frames with the number of members


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
        members: the JSON text of each member by its id; empty while they are only counted.
        count: how many members there are while they are only counted, else None.
    """

    def __init__(self, hub: Hub, topic: str) -> None:
        super().__init__(hub, presence_log(topic), RING_CHANGES)
        self.topic = topic
        self.members: dict[str, str] = {}
        self.count: int | None = None
        self._limit = hub.limits.members
        self._count_timer: asyncio.TimerHandle | None = None
        self._listing: asyncio.Task[None] | None = None  # returns from the number to the list
        self._list_frames: Sequence[Frame] | None = None  # of current members; None until made

    async def where_to_start(self, head: Cursor) -> Cursor:
        """Read the members, and return the position that the list belongs to."""
        return self._set_members(await self.hub.store.amembers(self.name, self._limit))

    def _set_members(self, member_list: MemberList) -> Cursor:
        self.members = dict(member_list.members)
        self.count = member_list.count
        self._list_frames = None
        return member_list.cursor

    def make_frame(self, event: Event, cursor: Cursor) -> EventFrame:
        """Encode a join or a leave."""
        return MemberFrame(self.topic, event, cursor)

    def list_frames(self) -> Sequence[Frame]:
        """Return the frames of the list or of the number of members, cached until they change."""
        if self._list_frames is None:
            texts = list(self.members.values())
            frames = members_frames(self.topic, texts, self.position.seq, count=self.count)
            self._list_frames = [Frame(text) for text in frames]
        return self._list_frames

    def _deliver(self, frame: EventFrame) -> None:
        assert isinstance(frame, MemberFrame)
        self._list_frames = None
        if self.count is not None:
            self.count += 1 if frame.is_join else -1
            self._position = frame.cursor
            self._push_count_later()
            return
        if frame.is_join:
            self.members[frame.uid] = frame.member
        else:
            self.members.pop(frame.uid, None)
        super()._deliver(frame)
        if len(self.members) > self._limit:
            self.count, self.members, self._list_frames = len(self.members), {}, None
            self.push_batch()
            self._push_count()

    def recent(self, after: Cursor) -> Frames | None:
        """Return the changes after a cursor; None, so that a list is sent, if they are counted."""
        return None if self.count is not None else super().recent(after)

    def _push_count_later(self) -> None:
        if self._count_timer is None and not self.closed:
            self._count_timer = self.hub.loop.call_later(COUNT_SECONDS, self._push_count)

    def _push_count(self) -> None:
        """Push the number of members; read the list again if it is short enough."""
        self._count_timer = None
        if self.count is None or self._listing is not None:
            return
        if self.count <= self._limit * 9 // 10:
            self._listing = self.hub.loop.create_task(self._list_again())
            # A callback, since an eager task may end before the assignment above.
            self._listing.add_done_callback(self._listed)
        else:
            self.push_reset(bundle(self.list_frames()), None)

    async def _list_again(self) -> None:
        try:
            member_list = await self.hub.store.amembers(self.name, self._limit)
        except StoreError:
            return  # tried again in a second
        cursor, position = member_list.cursor, self.position
        # In another epoch, a repair reads the members. A list from before the position lacks the
        # changes that arrived during the read.
        is_valid = cursor.epoch == position.epoch and cursor.seq >= position.seq
        if is_valid and self.count is not None:
            self._push_list(member_list)

    def _listed(self, task: asyncio.Task[None]) -> None:
        self._listing = None
        if self.count is not None:
            self._push_count_later()

    def close(self) -> None:
        """Stop timers and tasks; no new ones start."""
        super().close()
        if self._count_timer is not None:
            self._count_timer.cancel()
        if self._listing is not None:
            self._listing.cancel()

    async def _reset(self, head: Cursor, reason: Reset) -> None:
        """Read the members again, and push the list to all live subscribers."""
        self.hub.member_writer.check(self.name)
        self._push_list(await self.hub.store.amembers(self.name, self._limit))

    def _push_list(self, member_list: MemberList) -> None:
        """Push the list, or the number, to all live subscribers, and go on from its cursor."""
        self.push_batch()
        self._restart(self._set_members(member_list))
        self.push_reset(bundle(self.list_frames()), None)
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

    __slots__ = (
        "_has_count",
        "_has_started",
        "_hold",
        "_member",
        "_page",
        "_project_topic",
        "list_frames",
    )

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
        self._has_count = False  # the client last received the number of members

    @property
    def cursor(self) -> Cursor | None:
        """The cursor in the presence log up to which the client has received the changes.

        None while the members are only counted: whoever comes back receives the number, or the
        list.
        """
        self.topic.queue_pending()
        if self in self.topic.live:
            return self.topic.position if self.topic.count is None else None
        return None if self._has_count else self.position

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
            self._has_count = self.topic.count is not None
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

    def _is_current(self) -> bool:
        """Tell whether the client has the newest list, or the newest number of members."""
        # A list can belong to the same position as the number before it.
        return super()._is_current() and self._has_count == (self.topic.count is not None)

    async def _missing(self) -> Pieces:
        had_count, self._has_count = self._has_count, self.topic.count is not None
        if self.position is not None and had_count == self._has_count:
            recent = self.topic.recent(self.position)
            if recent is not None:
                return recent.singles
        # The position moves only when the whole list was sent.
        *first, last = self.topic.list_frames()
        return [*((frame, self.position) for frame in first), (last, self.topic.position)]
