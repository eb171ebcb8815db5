"""Polling where there is no ASGI server: ``GET poll`` as a Django view.

It answers as ``realtime.consumers.poll`` does, at once whatever ``wait`` says, since a thread that
waits is a thread that serves nobody.
There is no hub: the log is asked, with one query while nothing is new.
"""

from __future__ import annotations

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
from realtime.auth.users import Identity, bearer
from realtime.consumers.handlers import greeting
from realtime.consumers.http import Request, Response, response_to
from realtime.consumers.http_topics import Plan, Start, permitted, read_plan, refusal_frame
from realtime.consumers.poll import MAX_BYTES, answer_text, etag_of, is_known, read_limit, read_wait
from realtime.consumers.rate_limits import take_turn
from realtime.exceptions import CursorExpired
from realtime.hub.connection import HISTORY_SECONDS
from realtime.hub.recent import EventFrame
from realtime.outbox import sweep_if_due
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import frame, members_frames
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import Page, Store
from realtime.topics import Topic
from realtime.writers.stream import MAX_LIST_BYTES

__all__ = ["poll"]

logger = logging.getLogger("realtime")


@csrf_exempt  # it changes nothing, and another method than GET shall hear so in JSON
def poll(request: HttpRequest) -> HttpResponse:
    """Answer one poll, for ``request.user``."""
    asked = _request_of(request)
    cors = asked.cors(None)
    if asked.is_preflight and cors:
        return HttpResponse(status=204, headers=cors)
    try:
        response = _answer(asked, getattr(request, "user", None))
    except Exception as error:
        response = response_to(error)
    headers = {**response.all_headers, **cors}
    return HttpResponse(response.body, status=response.status, headers=headers)


def _request_of(request: HttpRequest) -> Request:
    """Return the request as the transports read it."""
    meta = request.META
    headers = {name.lower(): value for name, value in request.headers.items()}
    # As Django has it for a client of HTTP/1.0, which need not say which host it asks.
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
    plan = read_plan(request, conf.get().limits.topics)
    read_wait(request)  # refused where it is no number, as everywhere
    limit = read_limit(request)
    identity = _identify(request, user)
    user = identity.user
    take_turn(request.scope, user, patience=0.0)  # a thread that waits serves nobody
    topics, refused = async_to_sync(permitted)(identity, list(plan.starts))
    sweep_if_due()  # a crashed process's events go out also where no server follows
    store = get_store()
    names = [str(topic) for topic in topics]
    names += [presence_log(str(topic)) for topic in topics if topic.presence]
    heads = store.heads(names)
    known = etag_of(user, refused, [(name, heads[name]) for name in names])
    if plan.is_at(heads) and is_known(request, known):
        return Response(304, headers={"ETag": known})
    answer = _Answer(store, limit)
    answer.frames.append(Frame(greeting(secrets.token_urlsafe(9), identity)))
    answer.frames.extend(map(refusal_frame, refused))
    # Another one first each time, so that a busy topic does not keep the others out for ever.
    first = random.randrange(len(topics)) if topics else 0
    for topic in (*topics[first:], *topics[:first]):
        answer.add(topic, plan, heads[str(topic)])
    for topic in topics:
        if topic.presence:
            answer.add_members(str(topic), plan.presences.get(str(topic)))
    places = [(name, answer.places[name]) for name in names if name in answer.places]
    text = answer_text(answer.frames, places, more=answer.more)
    if request.method == "HEAD":
        return Response.of_json(text)  # see consumers.poll
    return Response.of_json(text, ETag=etag_of(user, refused, places))


def _identify(request: Request, user: Any) -> Identity:
    """Return who asks: by a token as on every transport, else as the project's middleware says."""
    if conf.get().authenticate is not None or bearer(request.scope) is not None:
        return async_to_sync(request.identify)()
    if user is not None:
        _ = user.is_authenticated  # a lazy user is looked up here, in the request's own thread
    return Identity(user)


@dataclass
class _Answer:
    """What is collected for one answer, topic by topic."""

    store: Store
    events_left: int
    bytes_left: int = MAX_BYTES
    frames: list[Frame] = field(default_factory=list)
    places: dict[str, Cursor] = field(default_factory=dict)
    lists_left: int = MAX_LIST_BYTES
    more: bool = False

    def add(self, topic: Topic, plan: Plan, head: Cursor) -> None:
        """Add where a topic begins, and what follows as far as it fits."""
        name = str(topic)
        since = plan.starts[name]
        recovered = None if since is None else True
        try:
            begin, page = self._begin(topic, since, plan.lasts.get(name), head)
        except CursorExpired as error:
            begin, page = error.head, Page((), error.head)
            recovered = recovered and False
        events: Sequence[EventFrame] = [EventFrame(e, e.cursor) for e in page.events if e.cursor]
        if not self._has_room:
            events = ()
        text = frame(
            "subscribed",
            topic=name,
            cursor=str(begin),
            recovered=recovered,
            replayed=page.head.seq - begin.seq,
        )
        kind = Kind.RESET if recovered is False else Kind.OTHER
        self.frames += [Frame(text, (name, begin), kind), *events]
        self.events_left -= len(events)
        self.bytes_left -= sum(event.size for event in events)
        end = events[-1].cursor if events else begin
        self.places[name] = end
        self.more = self.more or end != page.head

    def add_members(self, name: str, place: Cursor | None) -> None:
        """Add who is on a topic, unless nothing has changed since a place that the client has.

        There is no ring of changes here, so who is there is told whole; a list for which there is
        no room any more comes with another answer.
        """
        if self.lists_left <= 0:
            return
        log = presence_log(name)
        roster = self.store.members(log)
        if place != roster.cursor:
            texts = list(roster.members.values())
            frames = list(map(Frame, members_frames(name, texts, roster.cursor.seq)))
            self.frames += frames
            self.lists_left -= sum(frame.size for frame in frames)
        self.places[log] = roster.cursor

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
            begin = _locate(self.store, topic, since, None if since is not None else last, head)
        # Read where nothing fits any more too: whether the place is kept has to be told.
        limits = (self.events_left, self.bytes_left) if self._has_room else (1, 1)
        return begin, self.store.read(str(topic), begin, *limits)


def _locate(
    store: Store, topic: Topic, since: float | None, last: int | None, head: Cursor
) -> Cursor:
    name = str(topic)
    if not topic.history:
        earliest = store.clock() - HISTORY_SECONDS
        if since is not None and since < earliest:
            raise CursorExpired(name, head, head, contradicts=False)
        since = since or earliest
    return store.locate(name, last=last, since=since)
