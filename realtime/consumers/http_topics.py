"""Follow the topics that the URL of an HTTP request asks for.

``TopicQuery`` holds what the URL asks for; ``FollowedTopics`` joins the topics in the hub and
subscribes the request's connection to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from realtime.auth.users import Identity
from realtime.consumers.handlers import find_topic
from realtime.consumers.http import (
    HttpError,
    Request,
    http_error,
    store_unavailable,
    whole_number,
)
from realtime.exceptions import InvalidCursor, InvalidTopicName, ProtocolError, StoreError
from realtime.hub.connection import Connection, Subscription
from realtime.hub.hub import Hub
from realtime.hub.presence import LivePresence, hold_member
from realtime.hub.topic import LiveTopic
from realtime.protocol.commands import parse_since
from realtime.protocol.cursors import CompositeCursor, is_composite
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import ErrorCode, frame
from realtime.protocol.names import check_topic_name, presence_log
from realtime.topics import Topic

__all__ = [
    "FollowedTopic",
    "FollowedTopics",
    "Start",
    "TopicQuery",
    "permitted_topics",
    "read_query",
    "refusal_frame",
    "subscribed_frame",
]

Start: TypeAlias = Cursor | float | None

FORBIDDEN = "this topic does not exist, or you may not follow it"

# No log has this epoch, so this cursor causes a reset, like a cursor that has expired.
LOST = Cursor("lost", 0, 0)


@dataclass(frozen=True, slots=True)
class TopicQuery:
    """The topics that a URL asks for, and where each starts.

    Attributes:
        starts: by topic, in the URL's order: a cursor, seconds since 1970, or None for "from now
            on".
        last: by topic without a start: how many of the newest events to begin with.
        presence_cursors: by topic: the cursor in its presence log up to which the client knows the
            members.
    """

    starts: dict[str, Start]
    last: dict[str, int]
    presence_cursors: dict[str, Cursor] = field(default_factory=dict)

    @property
    def cursors(self) -> dict[str, Cursor]:
        """The cursors among the starts."""
        return {name: start for name, start in self.starts.items() if isinstance(start, Cursor)}

    def is_current(self, heads: Mapping[str, Cursor]) -> bool:
        """Tell whether every cursor that the client sent is the head of its log.

        Args:
            heads: the head of each log, by the log's name.
        """
        logs = {presence_log(name): cursor for name, cursor in self.presence_cursors.items()}
        return all(heads.get(name, at) == at for name, at in {**self.cursors, **logs}.items())


def read_query(request: Request, max_topics: int) -> TopicQuery:
    """Read ``topic``, ``since`` and ``last`` of a URL, and the client's last event id.

    The last event id takes precedence over ``since``.
    A single empty ``topic`` asks for no topic; the client then receives the welcome and heartbeats.

    Raises:
        HttpError: the query is malformed; the error names the topic if only one is to blame.
    """
    asked = request.query.get("topic", [])
    names = [] if asked == [""] else list(dict.fromkeys(asked))
    if not asked:
        reason, hint = "no topic was asked for", "add ?topic=orders.42, once per topic"
        raise HttpError(400, ErrorCode.BAD_TOPIC, reason, hint)
    if len(names) > max_topics:
        reason = f"{len(names)} topics were asked for and {max_topics} are allowed"
        hint = "follow one topic for the whole list of objects, or open another stream for the rest"
        first_refused = names[max_topics]
        raise HttpError(400, ErrorCode.TOO_MANY_TOPICS, reason, hint, topic=first_refused)
    for name in names:
        try:
            check_topic_name(name)
        except InvalidTopicName as error:
            hint = "send each topic's name as it is, percent-encoded"
            raise HttpError(400, ErrorCode.BAD_TOPIC, str(error), hint, topic=name) from None
    last_id = _last_event_id(request)
    last = _read_last(request, names, asked)
    sinces = _by_topic(request, "since", asked)
    if isinstance(sinces, str):
        since = _parse_since(sinces, names)
    else:
        since = {name: _parse_one(text, name) for name, text in sinces.items()}.get
    # EventSource keeps sending the last id and the page cannot clear it, so an id that cannot be
    # read counts as a lost cursor. Refusing it would end the stream for good.
    try:
        resume = _parse_last_event_id(last_id, names)
    except HttpError:
        return TopicQuery(dict.fromkeys(names, LOST), {})
    starts = {name: resume(name) if resume(name) is not None else since(name) for name in names}
    return TopicQuery(starts, last, _presence_cursors(request, last_id, names))


def _last_event_id(request: Request) -> str:
    """Return the ``Last-Event-ID`` header, or what the URL has instead of it.

    Polyfills of ``EventSource`` that cannot send the header append ``lastEventId`` or a similar
    field to the URL.

    Raises:
        HttpError: a field of another name has a cursor. Ignoring it would lose events silently.
    """
    in_url = ""
    for name, values in request.query.items():
        if name.lower().replace("-", "").replace("_", "").endswith("lasteventid"):
            in_url = values[-1]
        elif name not in ("since", "topic") and any(map(_is_resume_point, values)):
            reason = f"the field {name!r} of the query has a cursor"
            hint = "send it as Last-Event-ID, lastEventId or since"
            raise HttpError(400, ErrorCode.BAD_CURSOR, reason, hint)
    return request.headers.get("last-event-id") or in_url


def _is_resume_point(text: str) -> bool:
    try:
        CompositeCursor(text) if is_composite(text) else Cursor.parse(text)
    except InvalidCursor:
        return False
    return True


def _presence_cursors(request: Request, last_id: str, names: Sequence[str]) -> dict[str, Cursor]:
    """Return the cursors in presence logs; only a composite cursor has them."""
    found: dict[str, Cursor] = {}
    for text in (request.value("since"), last_id):
        if text and is_composite(text):
            composite = CompositeCursor(text)
            cursors = {name: composite.get(presence_log(name)) for name in names}
            found |= {name: cursor for name, cursor in cursors.items() if cursor is not None}
    return found


def _by_topic(request: Request, field: str, asked: Sequence[str]) -> dict[str, str] | str:
    """Return a field's values by topic, or its only value, which applies to all topics.

    Raises:
        HttpError: the field has several values, but not one for each topic.
    """
    values = request.query.get(field, [])
    if len(values) < 2:
        return "".join(values)
    if len(values) != len(asked):
        reason = f"{len(asked)} topics came with {len(values)} values of {field}"
        hint = f"send {field} once, or once per topic in the same order, empty for none"
        raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint)
    return dict(zip(asked, values, strict=True))


def _read_last(request: Request, names: Sequence[str], asked: Sequence[str]) -> dict[str, int]:
    values = _by_topic(request, "last", asked)
    if isinstance(values, str):
        values = dict.fromkeys(names, values) if request.value("last") is not None else {}
        return {name: whole_number("last", text, 0, 2**31) for name, text in values.items()}
    return {name: whole_number("last", text, 0, 2**31) for name, text in values.items() if text}


def _parse_one(text: str, name: str) -> Start:
    try:
        return _parse_since(text, [name])(name)
    except HttpError as error:
        error.topic = name
        raise


def _parse_last_event_id(text: str, names: Sequence[str]) -> Callable[[str], Start]:
    """Return a function from a topic's name to its start.

    A topic that a composite id lacks has no start, even if it is the only topic: the id can come
    from an earlier URL, which asked for other topics.
    """
    if not is_composite(text):
        return _parse_since(text, names)
    try:
        return CompositeCursor(text).get
    except InvalidCursor as error:
        raise HttpError(400, ErrorCode.BAD_CURSOR, str(error), "leave it out") from None


def _parse_since(text: str, names: Sequence[str]) -> Callable[[str], Start]:
    """Return a function from a topic's name to its start.

    A composite cursor for one topic must contain that topic.
    For several topics it can lack some: a poll's cursor lacks the topics that were refused.
    """
    if not text:
        return lambda name: None
    try:
        if is_composite(text) and len(names) != 1:
            return CompositeCursor(text).get
        start = parse_since(text, names[0] if len(names) == 1 else None)
    except InvalidCursor as error:
        hint = "fetch the state again and ask without since"
        topic = names[0] if len(names) == 1 else None
        raise HttpError(400, ErrorCode.BAD_CURSOR, str(error), hint, topic=topic) from None
    if isinstance(start, Cursor) and len(names) > 1:
        reason = "a cursor of one topic was given for several"
        hint = "send the composite cursor, or one since per topic"
        raise HttpError(400, ErrorCode.BAD_CURSOR, reason, hint)
    return lambda name: start


@dataclass(frozen=True, slots=True)
class FollowedTopic:
    """A permitted topic, which counts this request among its followers in the hub.

    Attributes:
        topic: the project's topic object.
        live: the topic in the hub.
        presence: its presence in the hub; None for a topic without presence.
    """

    topic: Topic
    live: LiveTopic
    presence: LivePresence | None


class FollowedTopics:
    """The topics that a request follows, and those that were refused.

    Attributes:
        topics: in the URL's order.
        refused: by name, why a topic is not followed: it does not exist, the user may not follow
            it, or its permission could not be checked now.
    """

    def __init__(
        self, hub: Hub, topics: Sequence[FollowedTopic], refused: Mapping[str, ProtocolError]
    ) -> None:
        self.hub = hub
        self.topics = topics
        self.refused = refused
        self._is_handed_over = False  # to a connection, or released

    @classmethod
    async def open(cls, hub: Hub, identity: Identity, names: Sequence[str]) -> FollowedTopics:
        """Check permissions and join the topics; call ``subscribe()`` or ``release()`` afterwards.

        Raises:
            HttpError: all topics are refused, or the log cannot be reached.
        """
        permitted, refused = await permitted_topics(identity, names)
        lives: dict[str, LiveTopic] = {}
        presences: dict[str, LivePresence] = {}

        async def join(topic: Topic) -> None:
            lives[str(topic)] = await hub.follow(topic)
            if topic.presence:
                presences[str(topic)] = await hub.follow_presence(topic)

        try:
            # Wait for all joins even if one fails: one that ends later would never be released.
            results = await asyncio.gather(*map(join, permitted), return_exceptions=True)
            if failed := next(filter(None, results), None):
                raise failed
        except BaseException as error:
            for live in (*lives.values(), *presences.values()):
                hub.release(live)
            if isinstance(error, StoreError):
                raise store_unavailable() from error
            raise
        topics = [FollowedTopic(t, lives[str(t)], presences.get(str(t))) for t in permitted]
        return cls(hub, topics, refused)

    def release(self) -> None:
        """Stop following the topics, unless ``subscribe()`` has handed them to a connection."""
        if not self._is_handed_over:
            self._is_handed_over = True
            for live in self._lives:
                self.hub.release(live)

    @property
    def _lives(self) -> list[LiveTopic]:
        presences = [one.presence for one in self.topics if one.presence is not None]
        return [*(one.live for one in self.topics), *presences]

    def heads(self) -> list[tuple[str, Cursor]]:
        """Return the hub's position in each topic, then in each presence log."""
        return [(live.name, live.position) for live in self._lives]

    async def renew_presence(self, user: Any, hold: float | None, visitor_id: str | None) -> None:
        """Keep the client a member of the topics for ``hold`` seconds; see ``subscribe()``."""
        for one in self.topics:
            if one.presence is not None:
                await hold_member(one.presence, one.topic, user, visitor_id, hold)

    async def subscribe(
        self,
        connection: Connection,
        query: TopicQuery,
        *,
        hold: float | None,
        visitor_id: str | None,
        at_once: bool = False,
    ) -> list[Subscription]:
        """Subscribe a connection to the topics, and send an answer for each, even a refused one.

        Args:
            connection: the request's connection.
            query: where each topic starts.
            hold: seconds for which the client stays a member after its connection ends; None if it
                does not become a member.
            visitor_id: identifies a visitor who is not signed in; None if such a visitor does not
                become a member.
            at_once: whether the client receives everything as one answer, as from a poll.

        Raises:
            StoreError: a log cannot be read now; end the connection.
        """
        self._is_handed_over = True
        subscriptions = []
        for one in self.topics:
            subscriptions.append(subscription := Subscription(connection, one.live))
            if one.presence is not None:
                subscription.add_presence(one.topic, one.presence, hold, visitor_id)
        for name, error in self.refused.items():
            connection.answer(refusal_frame(name, error))
        starting = [
            asyncio.ensure_future(_start(connection, one, subscription, query, at_once))
            for one, subscription in zip(self.topics, subscriptions, strict=True)
        ]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()  # when one has failed, the others may still be waiting
        return subscriptions


async def permitted_topics(
    identity: Identity, names: Sequence[str]
) -> tuple[list[Topic], dict[str, ProtocolError]]:
    """Return the topics that a client may follow, and by name why it does not follow the others.

    Raises:
        HttpError: all are refused. If the permission of one could not be checked, the error tells
            the client to try again.
    """
    found = await asyncio.gather(*(_find_permitted(name, identity) for name in names))
    permitted = [one for one in found if isinstance(one, Topic)]
    refused = {
        name: one for name, one in zip(names, found, strict=True) if isinstance(one, ProtocolError)
    }
    if refused and not permitted:
        for error in refused.values():
            if ErrorCode(error.code).retry:
                raise http_error(error)
        hint = "check its name, and sign in as a user who may follow it"
        raise HttpError(403, ErrorCode.FORBIDDEN, FORBIDDEN, hint)
    return permitted, refused


async def _find_permitted(name: str, identity: Identity) -> Topic | ProtocolError:
    try:
        topic = find_topic(name, identity)
        if await topic.may_subscribe(identity.user):
            return topic
    except ProtocolError as error:
        if ErrorCode(error.code).retry:
            return error
    return ProtocolError(ErrorCode.FORBIDDEN, FORBIDDEN)


def refusal_frame(name: str, error: ProtocolError) -> Frame:
    """Return the frame that refuses one topic while others are followed."""
    code = ErrorCode(error.code)
    text = frame("error", topic=name, code=code, message=error.reason, retry=code.retry)
    return Frame(text)


def subscribed_frame(name: str, cursor: Cursor, recovered: bool | None, replayed: int) -> Frame:
    """Return the frame that answers a subscription, sent before the topic's events.

    Args:
        name: the topic's name.
        cursor: where the replay begins.
        recovered: whether no event is missing; None if the client does not resume.
        replayed: how many events follow that are older than the subscription.
    """
    text = frame(
        "subscribed", topic=name, cursor=str(cursor), recovered=recovered, replayed=replayed
    )
    return Frame(text, (name, cursor), Kind.RESET if recovered is False else Kind.OTHER)


async def _start(
    connection: Connection,
    one: FollowedTopic,
    subscription: Subscription,
    query: TopicQuery,
    at_once: bool,
) -> None:
    name = one.live.name
    since = query.starts[name]

    def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
        recovered = None if since is None else recovered
        connection.answer(subscribed_frame(name, cursor, recovered, replayed))

    last = query.last.get(name) if since is None else None
    if subscription.presence is not None:
        await subscription.presence.prepare()
    await subscription.start(since, last, one.topic.history, announce)
    if subscription.presence is not None:
        subscription.presence.start(query.presence_cursors.get(name), at_once=at_once)
