"""Long polling and polling: ``GET poll?topic=a&since=…&wait=25``.

An answer depends on the request alone, so a client can repeat a request whose answer was lost, and
two concurrent polls lose nothing.
The hub keeps a topic between two polls, so the next poll need not join it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.http import parse_etags

from realtime import conf
from realtime.auth.users import Identity, unauthorized
from realtime.consumers.handlers import welcome_for
from realtime.consumers.http import (
    Receive,
    Request,
    Response,
    answer,
    http_error,
    store_unavailable,
)
from realtime.consumers.http_topics import FollowedTopics, TopicQuery, read_query
from realtime.consumers.rate_limits import limit_request
from realtime.exceptions import ProtocolError, StoreError
from realtime.hub import get_hub
from realtime.hub.connection import Connection, Subscription
from realtime.hub.hub import Hub
from realtime.hub.member_writer import POLL_HOLD_SECONDS
from realtime.hub.presence import PresenceSubscription
from realtime.protocol.cursors import compose, entry
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode, ErrorCode
from realtime.publishing import origin_hash
from realtime.writers.asgi import Send
from realtime.writers.daphne import count_answer, is_secure
from realtime.writers.stream import CollectingWriter

__all__ = [
    "MAX_BYTES",
    "answer_text",
    "etag_matches",
    "etag_of",
    "poll",
    "read_limit",
    "read_wait",
]

MAX_WAIT_SECONDS = 50  # many proxies cut a request after 60 seconds
MAX_EVENTS = 500  # in one answer; `limit` can ask for fewer
MAX_BYTES = 256 * 1024  # in one answer, as in a replay
BATCH_SECONDS = 0.01  # after a long poll's first event, so that a burst is one answer
CATCH_UP_SECONDS = 15.0  # for reading the logs; after that, the answer has the events read so far


async def poll(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one poll, as an ASGI application."""
    request = Request(scope)
    secure = is_secure(send)
    one = _Poll(request, receive)
    await answer(request, send, secure, one.answer(secure))
    if one.hub is not None:
        count_answer(send, one.hub.flusher)


class _Poll:
    """One request, and what is collected for its answer.

    Attributes:
        request: the request to answer.
        receive: the server's ``receive``, which tells when the client disconnects.
        hub: the hub of this process; None until the request is accepted.
        failed: whether the hub closed the connection because a log could not be read.
        writer: collects the frames of the answer.
        connection: follows the topics until the answer is complete.
        visitor_id: identifies a visitor who is not signed in; None if such a visitor does not
            become a member.
        hold: seconds for which the client stays a member; None if it does not become one.
    """

    def __init__(self, request: Request, receive: Receive) -> None:
        self.request = request
        self.receive = receive
        self.hub: Hub | None = None
        self.failed = False

    async def answer(self, secure: bool | None) -> Response | None:
        """Return the answer; None if the client left.

        Raises:
            HttpError: the request is refused, or a log cannot be read.
        """
        request = self.request
        request.check(("GET", "HEAD"))
        request.check_origin(secure)
        query = read_query(request, conf.get().limits.topics)
        wait = read_wait(request)
        self.writer = CollectingWriter(read_limit(request), MAX_BYTES)
        identity = await request.identify()
        user = identity.user
        if delay := limit_request(request.scope, user, len(query.starts)):
            await asyncio.sleep(delay)
        topics = await FollowedTopics.open(get_hub(), identity, list(query.starts))
        self.hub = topics.hub
        self.connection = Connection(topics.hub, user, self.writer, MAX_BYTES, self._fail)
        try:
            secret = request.headers.get("x-realtime-origin")
            self.visitor_id = None if secret is None else origin_hash(secret)
            # A HEAD request does not make its client a member.
            self.hold = None if request.method == "HEAD" else POLL_HOLD_SECONDS
            heads = topics.heads()
            etag = etag_of(user, topics.refused, heads)
            if not wait and query.is_current(dict(heads)) and etag_matches(request, etag):
                await topics.renew_presence(user, self.hold, self.visitor_id)
                return Response(304, headers={"ETag": etag})
            return await self._collect(identity, topics, query, wait)
        finally:
            topics.release()
            self.connection.end()

    async def _collect(
        self, identity: Identity, topics: FollowedTopics, query: TopicQuery, wait: int
    ) -> Response | None:
        writer = self.writer
        left = identity.expires - time.time() if identity.expires is not None else math.inf
        self.connection.answer(Frame(welcome_for(self.connection.id, identity)))
        try:
            subscriptions = await topics.subscribe(
                self.connection, query, hold=self.hold, visitor_id=self.visitor_id, at_once=True
            )
        except StoreError:
            raise store_unavailable() from None
        presences = [one.presence for one in subscriptions if one.presence is not None]
        # Count the frames that are no reason to answer: the welcome, one answer per topic, and
        # member lists without news. Any other frame, such as a replayed event, is a reason.
        expected = 1 + len(topics.refused) + len(subscriptions)
        expected += sum(one.list_frames for one in presences if not _is_news(one, query))
        await self._catch_up(subscriptions, presences)
        # A client without a start needs its first cursor, so it is answered at once, and one that
        # should ask again for a topic, too.
        is_first = any(query.starts[one.live.name] is None for one in topics.topics)
        is_first = is_first or any(ErrorCode(e.code).retry for e in topics.refused.values())
        if wait and not is_first and len(writer.frames) == expected and not _resets(writer.frames):
            if not await self._wait(min(wait, left), expected):
                return None
            if left <= wait and not self.failed and len(writer.frames) == expected:
                raise http_error(unauthorized())  # the token has expired in the meantime
            if not writer.full and len(writer.frames) > expected:
                await asyncio.sleep(BATCH_SECONDS)
            await self._catch_up(subscriptions, presences)
        if self.failed:
            raise store_unavailable()
        # Read these before the frames: reading them flushes pending frames into the answer.
        members = [(one.topic.name, one.cursor) for one in presences]
        reached = dict(_cursors(writer.frames))
        cursors = [(name, reached[name]) for name in query.starts if name in reached]
        cursors += [(name, cursor) for name, cursor in members if cursor is not None]
        more = any(one.catching_up and one.position != one.topic.position for one in subscriptions)
        text = answer_text(writer.frames, cursors, more=more)
        if self.request.method == "HEAD":
            return Response.of_json(text)  # without an ETag: the client does not get the events
        etag = etag_of(self.connection.user, topics.refused, cursors)
        return Response.of_json(text, ETag=etag)

    async def _catch_up(
        self, subscriptions: Sequence[Subscription], presences: Sequence[PresenceSubscription]
    ) -> None:
        """Wait until all are caught up, the answer is full, or ``CATCH_UP_SECONDS`` passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_SECONDS
        while not self.writer.full and not self.failed and (left := deadline - loop.time()) > 0:
            parts: list[Subscription | PresenceSubscription] = [*subscriptions, *presences]
            catching_up = [task for one in parts if (task := one.catching_up)]
            if not catching_up:
                return
            changed = asyncio.create_task(self.writer.changed())
            waiting = [*catching_up, changed]
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()

    async def _wait(self, seconds: float, expected: int) -> bool:
        """Wait for a frame beyond the expected ones, or the timeout; False if the client left."""
        gone = asyncio.create_task(_disconnect(self.receive))
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            while not self.failed and len(self.writer.frames) == expected:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or gone.done():
                    break
                changed = asyncio.create_task(self.writer.changed())
                await asyncio.wait(
                    [gone, changed], timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
            return not gone.done()
        finally:
            gone.cancel()

    def _fail(self, code: CloseCode) -> None:
        self.failed = True
        self.writer.wake()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_news(presence: PresenceSubscription, query: TopicQuery) -> bool:
    """Tell whether a list of members is newer than what the client knows.

    For a client that sends no cursor in the presence log, no list is news; otherwise each of its
    polls would be answered at once. A list that is older than the client's cursor is no news
    either: that cursor came from a node that is ahead of this one.
    """
    known, current = query.presence_cursors.get(presence.topic.topic), presence.topic.position
    return known is not None and (known.epoch != current.epoch or known.seq < current.seq)


def _cursors(frames: Sequence[Frame]) -> list[tuple[str, Cursor]]:
    return [frame.topic_cursor for frame in frames if frame.topic_cursor is not None]


def _resets(frames: Sequence[Frame]) -> list[str]:
    """Return the topics that were reset: the client has to fetch their state again."""
    resets = [
        frame.topic_cursor[0] for frame in frames if frame.kind is Kind.RESET and frame.topic_cursor
    ]
    return list(dict.fromkeys(resets))


def answer_text(
    frames: Sequence[Frame], cursors: Sequence[tuple[str, Cursor]], *, more: bool
) -> str:
    """Return the JSON text of an answer, which contains the frames as they were encoded.

    Args:
        frames: the frames that a stream would have received, in the same order.
        cursors: by log: where the client resumes with the next poll.
        more: whether the next poll will receive events at once.
    """
    events = ",".join(frame.text for frame in frames if frame.is_event)
    others = ",".join(frame.text for frame in frames if not frame.is_event)
    cursor = compose(entry(*each) for each in cursors)
    fields = {"cursor": cursor, "reset": _resets(frames), "more": more}
    rest = json.dumps(fields, separators=(",", ":"))
    return f'{{"events":[{events}],"frames":[{others}],{rest[1:]}'


def etag_of(
    user: Any, refused: Mapping[str, ProtocolError], cursors: Sequence[tuple[str, Cursor]]
) -> str:
    """Return the ETag of an answer that ended at these cursors.

    If it equals the ETag that is made from the heads of the logs, there is nothing new to fetch.
    """
    who = "" if user is None else str(user.pk)
    refusals = sorted((name, error.code) for name, error in refused.items())
    text = json.dumps([who, refusals, [[name, str(cursor)] for name, cursor in cursors]])
    # Weak: two such answers have the same content, but not the same bytes.
    return f'W/"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'


def etag_matches(request: Request, etag: str) -> bool:
    """Tell whether the client has the answer with this ETag already.

    Source: RFC 9110, section 13.1.2.
    """
    known = parse_etags(request.headers.get("if-none-match", ""))
    return "*" in known or etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in known)


def read_wait(request: Request) -> int:
    """Return how many seconds the answer can be delayed while there is nothing new.

    Raises:
        HttpError: the value is not a whole number.
    """
    return request.number("wait", 0, 0, MAX_WAIT_SECONDS)


def read_limit(request: Request) -> int:
    """Return the maximum number of events in the answer.

    Raises:
        HttpError: the value is not a whole number.
    """
    return request.number("limit", MAX_EVENTS, 1, MAX_EVENTS)
