"""Following the topics of one HTTP request: its URL says which, and from where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from realtime.auth.users import Identity
from realtime.consumers.http import HttpError, Request, unavailable, whole_number
from realtime.exceptions import InvalidCursor, InvalidTopicName, StoreError
from realtime.hub.connection import Connection, Subscription
from realtime.hub.hub import Hub
from realtime.hub.presence import LivePresence, visit
from realtime.hub.topic import LiveTopic
from realtime.protocol.commands import parse_since
from realtime.protocol.cursors import Composite, is_composite
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import ErrorCode, frame
from realtime.protocol.names import check_topic_name, presence_log
from realtime.topics import Topic, find

__all__ = ["Followed", "Following", "Plan", "Start", "permitted", "read_plan", "refusal_frame"]

Start: TypeAlias = Cursor | float | None

# Of no log that there is: resuming from it is a reset, as it is for every cursor that is lost.
LOST = Cursor("lost", 0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a URL asks for.

    Attributes:
        starts: where each topic is followed from, in the URL's order; None is from now on.
        lasts: begin with so many of the newest events, in topics without another start.
        presences: up to where the client knows who is on a topic, of those of which it knows.
    """

    starts: dict[str, Start]
    lasts: dict[str, int]
    presences: dict[str, Cursor] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, Cursor]:
        """The cursors among the starts."""
        return {name: start for name, start in self.starts.items() if isinstance(start, Cursor)}

    def is_at(self, heads: Mapping[str, Cursor]) -> bool:
        """Tell whether no place that it has is behind where its log, by name, stands."""
        presences = {presence_log(name): place for name, place in self.presences.items()}
        return all(heads.get(name, at) == at for name, at in {**self.places, **presences}.items())


def read_plan(request: Request, max_topics: int) -> Plan:
    """Read ``topic``, ``since`` and ``last`` of a URL, and ``Last-Event-ID``, which goes before.

    A single empty ``topic`` asks for no topic: what comes is the welcome, and heartbeats.

    Raises:
        HttpError: they cannot be understood; it names the topic where only one is to blame.
    """
    asked = request.query.get("topic", [])
    names = [] if asked == [""] else list(dict.fromkeys(asked))
    if not asked:
        reason, hint = "no topic was asked for", "add ?topic=orders.42, once a topic"
        raise HttpError(400, ErrorCode.BAD_TOPIC, reason, hint)
    if len(names) > max_topics:
        reason = f"{len(names)} topics were asked for and {max_topics} are allowed"
        hint, beyond = "open another stream for the rest", names[max_topics]
        raise HttpError(400, ErrorCode.TOO_MANY_TOPICS, reason, hint, topic=beyond)
    for name in names:
        try:
            check_topic_name(name)
        except InvalidTopicName as error:
            hint = "send each topic's name as it is, percent-encoded"
            raise HttpError(400, ErrorCode.BAD_TOPIC, str(error), hint, topic=name) from None
    lasts = _lasts(request, names, asked)
    sinces = _values(request, "since", asked)
    if isinstance(sinces, str):
        since = _reader(sinces, names)
    else:
        since = {name: _read_one(text, name) for name, text in sinces.items()}.get
    # EventSource sends the last id for ever and a page cannot take it back, so that one that cannot
    # be read is a place that is lost, and no refusal.
    try:
        before = _last_event_id(request.headers.get("last-event-id", ""), names)
    except HttpError:
        return Plan(dict.fromkeys(names, LOST), {})
    starts = {name: before(name) if before(name) is not None else since(name) for name in names}
    return Plan(starts, lasts, _presences(request, names))


def _presences(request: Request, names: Sequence[str]) -> dict[str, Cursor]:
    """Return the places in presence logs, which only composite cursors have."""
    found: dict[str, Cursor] = {}
    for text in (request.value("since"), request.headers.get("last-event-id")):
        if text and is_composite(text):
            composite = Composite(text)
            places = {name: composite.get(presence_log(name)) for name in names}
            found |= {name: place for name, place in places.items() if place is not None}
    return found


def _values(request: Request, field: str, asked: Sequence[str]) -> dict[str, str] | str:
    """Return a field's values by topic, or the one that is for all of them.

    Raises:
        HttpError: there are several, and not one a topic.
    """
    values = request.query.get(field, [])
    if len(values) < 2:
        return "".join(values)
    if len(values) != len(asked):
        reason = f"{len(asked)} topics came with {len(values)} values of {field}"
        hint = f"send {field} once, or once a topic in their order, empty for none"
        raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint)
    return dict(zip(asked, values, strict=True))


def _lasts(request: Request, names: Sequence[str], asked: Sequence[str]) -> dict[str, int]:
    values = _values(request, "last", asked)
    if isinstance(values, str):
        values = dict.fromkeys(names, values) if request.value("last") is not None else {}
        return {name: whole_number("last", text, 0, 2**31) for name, text in values.items()}
    return {name: whole_number("last", text, 0, 2**31) for name, text in values.items() if text}


def _read_one(text: str, name: str) -> Start:
    try:
        return _reader(text, [name])(name)
    except HttpError as error:
        error.topic = name
        raise


def _last_event_id(text: str, names: Sequence[str]) -> Callable[[str], Start]:
    """Return what tells each topic's place.

    A topic that it lacks has none, also if it is the only one: a browser sends the id to whatever
    the page's URL has become.
    """
    if not is_composite(text):
        return _reader(text, names)
    try:
        return Composite(text).get
    except InvalidCursor as error:
        raise HttpError(400, ErrorCode.BAD_CURSOR, str(error), "leave it out") from None


def _reader(text: str, names: Sequence[str]) -> Callable[[str], Start]:
    """Return what tells each topic's start.

    A composite cursor has a place for the only topic, or is refused; of several topics it may lack
    some, as that of a poll lacks those which were refused.
    """
    if not text:
        return lambda name: None
    try:
        if is_composite(text) and len(names) != 1:
            return Composite(text).get
        start = parse_since(text, names[0] if len(names) == 1 else None)
    except InvalidCursor as error:
        hint = "fetch the state anew and ask without since"
        topic = names[0] if len(names) == 1 else None
        raise HttpError(400, ErrorCode.BAD_CURSOR, str(error), hint, topic=topic) from None
    if isinstance(start, Cursor) and len(names) > 1:
        reason = "a cursor of one topic was given for several"
        hint = "send the composite cursor, or one since a topic"
        raise HttpError(400, ErrorCode.BAD_CURSOR, reason, hint)
    return lambda name: start


@dataclass(frozen=True, slots=True)
class Followed:
    """A topic that may be followed, with one more follower in the hub, and of its presence."""

    topic: Topic
    live: LiveTopic
    presence: LivePresence | None


class Following:
    """The topics of a request that its user may follow, and those that were refused.

    Attributes:
        followed: in the URL's order.
        refused: names of topics that do not exist or are not allowed.
    """

    def __init__(self, hub: Hub, followed: Sequence[Followed], refused: Sequence[str]) -> None:
        self.hub = hub
        self.followed = followed
        self.refused = refused
        self._taken = False

    @classmethod
    async def open(cls, hub: Hub, identity: Identity, names: Sequence[str]) -> Following:
        """Ask for permission and join; ``release()`` or ``begin()`` must come afterwards.

        Raises:
            HttpError: all are refused, or the log cannot be reached.
        """
        wanted, refused = await permitted(identity, names)
        lives: dict[str, LiveTopic] = {}
        presences: dict[str, LivePresence] = {}

        async def join(topic: Topic) -> None:
            lives[str(topic)] = await hub.follow(topic)
            if topic.presence:
                presences[str(topic)] = await hub.follow_presence(topic)

        try:
            # All of them come to an end, or whoever joins last would be released by nobody.
            ends = await asyncio.gather(*map(join, wanted), return_exceptions=True)
            if failed := next(filter(None, ends), None):
                raise failed
        except BaseException as error:
            for live in (*lives.values(), *presences.values()):
                hub.release(live)
            if isinstance(error, StoreError):
                raise unavailable() from error
            raise
        found = [Followed(t, lives[str(t)], presences.get(str(t))) for t in wanted]
        return cls(hub, found, refused)

    def release(self) -> None:
        """Let the hub go of what ``begin()`` has not taken over."""
        if not self._taken:
            self._taken = True
            for live in self._lives:
                self.hub.release(live)

    @property
    def _lives(self) -> list[LiveTopic]:
        presences = [one.presence for one in self.followed if one.presence is not None]
        return [*(one.live for one in self.followed), *presences]

    def heads(self) -> list[tuple[str, Cursor]]:
        """Return where each topic stands, and then each presence."""
        return [(live.name, live.position) for live in self._lives]

    async def visit(self, user: Any, hold: float | None, page: str | None) -> None:
        """Be on the topics for a while, where nothing has to be told; see ``begin()``."""
        for one in self.followed:
            if one.presence is not None:
                await visit(one.presence, one.topic, user, page, hold)

    async def begin(
        self,
        connection: Connection,
        plan: Plan,
        *,
        hold: float | None,
        page: str | None,
        at_once: bool = False,
    ) -> list[Subscription]:
        """Subscribe the connection to all of them, each from its start, and say what is refused.

        Args:
            connection: whose request it is.
            plan: what it asks for.
            hold: seconds that a member stays after the connection's end; None for no member.
            page: what a visitor who is not signed in is known by; None for no member.
            at_once: the connection is one answer, which is read when it is finished.

        Raises:
            StoreError: a log cannot be read now; end the connection.
        """
        self._taken = True  # by the connection, whose end lets go of them
        subscriptions = []
        for one in self.followed:
            subscriptions.append(subscription := Subscription(connection, one.live))
            if one.presence is not None:
                subscription.attend(one.topic, one.presence, hold, page)
        for name in self.refused:
            connection.answer(refusal_frame(name))
        starting = [
            asyncio.ensure_future(_start(connection, one, subscription, plan, at_once))
            for one, subscription in zip(self.followed, subscriptions, strict=True)
        ]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()  # of those that still wait when one has failed
        return subscriptions


async def permitted(identity: Identity, names: Sequence[str]) -> tuple[list[Topic], list[str]]:
    """Return the topics that a client may follow, and the names of all others.

    Raises:
        HttpError: all are refused.
    """
    topics = [_find(name) for name in names]
    allowed = await asyncio.gather(*(_may_subscribe(topic, identity) for topic in topics))
    wanted = [topic for topic, may in zip(topics, allowed, strict=True) if topic and may]
    if names and not wanted:
        hint = "check its name, and sign in as somebody who may"
        reason = "this topic does not exist, or you may not follow it"
        raise HttpError(403, ErrorCode.FORBIDDEN, reason, hint)
    return wanted, [name for name, may in zip(names, allowed, strict=True) if not may]


def _find(name: str) -> Topic | None:
    try:
        return find(name)
    except InvalidTopicName:
        return None


async def _may_subscribe(topic: Topic | None, identity: Identity) -> bool:
    if topic is None or not identity.allows(str(topic)):
        return False
    return await topic.may_subscribe(identity.user)


def refusal_frame(name: str) -> Frame:
    """Return the frame that tells of a refused topic, among others that are followed."""
    message = "this topic does not exist, or you may not follow it"
    return Frame(frame("error", topic=name, code=ErrorCode.FORBIDDEN, message=message, retry=False))


async def _start(
    connection: Connection, one: Followed, subscription: Subscription, plan: Plan, at_once: bool
) -> None:
    name = one.live.name
    since = plan.starts[name]

    def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
        text = frame(
            "subscribed",
            topic=name,
            cursor=str(cursor),
            recovered=None if since is None else recovered,
            replayed=replayed,
        )
        kind = Kind.RESET if recovered is False else Kind.OTHER
        connection.answer(Frame(text, (name, cursor), kind))

    last = plan.lasts.get(name) if since is None else None
    if subscription.presence is not None:
        await subscription.presence.prepare()
    await subscription.start(since, last, one.topic.history, announce)
    if subscription.presence is not None:
        subscription.presence.begin(plan.presences.get(name), at_once=at_once)
