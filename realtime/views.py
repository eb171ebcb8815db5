"""Polling under WSGI: ``GET poll`` as a Django view.

The answers are those of ``realtime.consumers.poll``, but they are sent at once, whatever ``wait``
says: a thread that waits cannot serve other requests.
There is no hub; the view reads the log, with a single query if nothing is new.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from realtime import conf
from realtime.auth.addresses import set_source
from realtime.auth.users import Identity, bearer
from realtime.consumers.handlers import welcome_for
from realtime.consumers.http import Request, Response, error_response
from realtime.consumers.http_topics import (
    Start,
    TopicQuery,
    permitted_topics,
    read_query,
    refusal_frame,
    subscribed_frame,
)
from realtime.consumers.poll import (
    MAX_BYTES,
    answer_text,
    etag_matches,
    etag_of,
    read_limit,
    read_wait,
)
from realtime.consumers.rate_limits import limit_request
from realtime.exceptions import CursorExpired, ProtocolError
from realtime.fair_slots import busy
from realtime.hub.connection import since_without_history
from realtime.hub.recent import EventFrame
from realtime.outbox import relay_stale_if_due
from realtime.protocol.encoders import Frame
from realtime.protocol.events import Cursor
from realtime.protocol.frames import members_frames
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import Page, Store
from realtime.topics import Topic
from realtime.user_code import COMMAND_SECONDS
from realtime.writers.stream import MAX_LIST_BYTES

__all__ = ["poll"]

logger = logging.getLogger("realtime")


@csrf_exempt  # a GET changes nothing; other methods get our JSON error instead of Django's page
def poll(request: HttpRequest) -> HttpResponse:
    """Answer one poll, for ``request.user``."""
    own = _request_of(request)
    cors = own.cors(None)
    if own.is_preflight and cors:
        return HttpResponse(status=204, headers=cors)
    try:
        response = _answer(own, getattr(request, "user", None))
    except Exception as error:
        response = error_response(error)
    headers = {**response.all_headers, **cors}
    return HttpResponse(response.body, status=response.status, headers=headers)


def _request_of(request: HttpRequest) -> Request:
    """Convert a Django request into a ``Request`` of the transports."""
    meta = request.META
    headers = {name.lower(): value for name, value in request.headers.items()}
    # An HTTP/1.0 client need not send a Host header; like Django, use the server's name then.
    headers.setdefault("host", f"{meta['SERVER_NAME']}:{meta['SERVER_PORT']}")
    return Request(
        {
            "type": "http",
            "method": request.method,
            "client": (meta.get("REMOTE_ADDR", ""), 0),
            "scheme": request.scheme,
            "query_string": meta.get("QUERY_STRING", "").encode("latin-1", "replace"),
            "headers": [
                (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in headers.items()
            ],
        }
    )


def _answer(request: Request, user: Any) -> Response:
    request.check(("GET", "HEAD"))
    request.check_origin(None)
    query = read_query(request, conf.get().limits.topics)
    read_wait(request)  # only to refuse a value that is not a number
    limit = read_limit(request)
    set_source(request.scope)
    identity = _identify(request, user)
    user = identity.user
    # Refuse at once; do not block a thread.
    limit_request(request.scope, user, len(query.starts), can_wait=False)
    topics, refused = async_to_sync(_permitted_topics)(identity, list(query.starts))
    relay_stale_if_due()  # the events of a crashed process; there may be no ASGI server to do it
    store = get_store()
    names = [str(topic) for topic in topics]
    names += [presence_log(str(topic)) for topic in topics if topic.presence]
    heads = store.heads(names)
    etag = etag_of(user, refused, [(name, heads[name]) for name in names])
    if query.is_current(heads) and etag_matches(request, etag):
        return Response(304, headers={"ETag": etag})
    answer = _Answer(store, limit)
    answer.frames.append(Frame(welcome_for(secrets.token_urlsafe(9), identity)))
    answer.frames.extend(refusal_frame(*one) for one in refused.items())
    # Begin with a random topic, so that a busy one cannot fill every answer.
    first = random.randrange(len(topics)) if topics else 0
    for topic in (*topics[first:], *topics[:first]):
        answer.add(topic, query, heads[str(topic)])
    for topic in topics:
        if topic.presence:
            answer.add_members(str(topic), query.presence_cursors.get(str(topic)))
    cursors = [(name, answer.cursors[name]) for name in names if name in answer.cursors]
    text = answer_text(answer.frames, cursors, more=answer.more)
    if request.method == "HEAD":
        return Response.of_json(text)  # without an ETag: the client does not get the events
    return Response.of_json(text, ETag=etag_of(user, refused, cursors))


async def _permitted_topics(
    identity: Identity, names: Sequence[str]
) -> tuple[list[Topic], dict[str, ProtocolError]]:
    # The loops of several threads do not know each other's turns, so the threads of the project's
    # code can all be in use; this thread waits no longer for them than a command does.
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            return await permitted_topics(identity, names)
    except TimeoutError:
        raise busy() from None


def _identify(request: Request, user: Any) -> Identity:
    """Return the identity of a token or of ``AUTHENTICATE``, else of ``request.user``."""
    if conf.get().authenticate is not None or bearer(request.scope) is not None:
        return async_to_sync(request.identify)()
    if user is not None:
        _ = user.is_authenticated  # looks up a lazy user here, in the request's own thread
    return Identity(user)


@dataclass
class _Answer:
    """An answer that is collected topic by topic.

    Attributes:
        store: where the logs are.
        events_left: how many more events fit.
        bytes_left: how many more bytes of events fit.
        frames: the frames so far.
        cursors: by log: where the client resumes with the next poll.
        lists_left: how many more bytes of member lists fit.
        more: whether a topic has events that did not fit.
    """

    store: Store
    events_left: int
    bytes_left: int = MAX_BYTES
    frames: list[Frame] = field(default_factory=list)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    lists_left: int = MAX_LIST_BYTES
    more: bool = False

    def add(self, topic: Topic, query: TopicQuery, head: Cursor) -> None:
        """Add a topic's ``subscribed`` frame, and as many of its events as fit."""
        name = str(topic)
        since = query.starts[name]
        recovered = None if since is None else True
        try:
            begin, page = self._begin(topic, since, query.last.get(name), head)
        except CursorExpired as error:
            begin, page = error.head, Page((), error.head)
            recovered = recovered and False
        events: Sequence[EventFrame] = [EventFrame(e, e.cursor) for e in page.events if e.cursor]
        if not self._has_room:
            events = ()
        replayed = page.head.seq - begin.seq
        self.frames += [subscribed_frame(name, begin, recovered, replayed), *events]
        self.events_left -= len(events)
        self.bytes_left -= sum(event.size for event in events)
        end = events[-1].cursor if events else begin
        self.cursors[name] = end
        self.more = self.more or end != page.head

    def add_members(self, name: str, known: Cursor | None) -> None:
        """Add the list of a topic's members if it has changed since a cursor.

        The list is always complete, because recent changes are not kept in memory without a hub.
        A list that does not fit is sent with a later answer.

        Args:
            name: the topic's name.
            known: the cursor in the presence log up to which the client knows the members.
        """
        if self.lists_left <= 0:
            return
        log = presence_log(name)
        member_list = self.store.members(log, conf.get().limits.members)
        if known != member_list.cursor:
            texts = list(member_list.members.values())
            version, count = member_list.cursor.seq, member_list.count
            frames = list(map(Frame, members_frames(name, texts, version, count=count)))
            self.frames += frames
            self.lists_left -= sum(frame.size for frame in frames)
        self.cursors[log] = member_list.cursor

    @property
    def _has_room(self) -> bool:
        return self.events_left > 0 and self.bytes_left > 0

    def _begin(
        self, topic: Topic, since: Start, last: int | None, head: Cursor
    ) -> tuple[Cursor, Page]:
        if since is None and last is None:
            return head, Page((), head)
        if isinstance(since, Cursor):
            begin = since
        else:
            last = None if since is not None else last
            if not topic.history:
                since = since_without_history(str(topic), since, self.store.clock(), head)
            begin = self.store.locate(str(topic), last=last, since=since)
        # Read even if nothing more fits: the read shows whether the log still has the cursor.
        limits = (self.events_left, self.bytes_left) if self._has_room else (1, 1)
        return begin, self.store.read(str(topic), begin, *limits)
