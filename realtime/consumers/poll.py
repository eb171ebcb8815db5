"""Long polling and polling: ``GET poll?topic=a&since=…&wait=25``.

An answer depends on the request alone, so one that never arrived can be asked for again, and two at
once lose nothing.
The topics linger in the hub between two polls, so that the next one finds them warm.
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
from realtime.consumers.handlers import greeting
from realtime.consumers.http import Receive, Request, Response, answer, error_of, unavailable
from realtime.consumers.http_topics import Following, Plan, read_plan
from realtime.consumers.rate_limits import take_turn
from realtime.exceptions import StoreError
from realtime.hub import get_hub
from realtime.hub.connection import Connection, Subscription
from realtime.hub.member_writer import POLL_HOLD_SECONDS
from realtime.hub.presence import PresenceSubscription
from realtime.protocol.cursors import compose, entry
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.publishing import origin_hash
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure
from realtime.writers.stream import CollectingWriter

__all__ = ["MAX_BYTES", "answer_text", "etag_of", "is_known", "poll", "read_limit", "read_wait"]

MAX_WAIT_SECONDS = 50  # many proxies cut a request after 60
MAX_EVENTS = 500  # of one answer; `limit` may ask for fewer
MAX_BYTES = 256 * 1024  # of one answer, as of a replay
GATHER_SECONDS = 0.01  # that an answer waits for what comes right behind its first event
CATCH_UP_SECONDS = 15.0  # that a log may take to be read; then the answer is what there is


async def poll(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one poll, as an ASGI application."""
    request = Request(scope)
    secure = is_secure(send)
    await answer(request, send, secure, _Poll(request, receive).answer(secure))


class _Poll:
    """One request and what is collected for its answer."""

    def __init__(self, request: Request, receive: Receive) -> None:
        self.request = request
        self.receive = receive
        self.failed = False

    async def answer(self, secure: bool | None) -> Response | None:
        """Return the answer; None if the client left.

        Raises:
            HttpError: the request is refused.
        """
        request = self.request
        request.check(("GET", "HEAD"))
        request.check_origin(secure)
        plan = read_plan(request, conf.get().limits.topics)
        wait = read_wait(request)
        self.writer = CollectingWriter(read_limit(request), MAX_BYTES)
        identity = await request.identify()
        user = identity.user
        if pause := take_turn(request.scope, user):
            await asyncio.sleep(pause)
        following = await Following.open(get_hub(), identity, list(plan.starts))
        self.connection = Connection(following.hub, user, self.writer, MAX_BYTES, self._fail)
        try:
            secret = request.headers.get("x-realtime-origin")
            self.page = None if secret is None else origin_hash(secret)
            # Who only asks for the head of an answer is nowhere.
            self.hold = None if request.method == "HEAD" else POLL_HOLD_SECONDS
            heads = following.heads()
            known = etag_of(user, following.refused, heads)
            if not wait and plan.is_at(dict(heads)) and is_known(request, known):
                await following.visit(user, self.hold, self.page)
                return Response(304, headers={"ETag": known})
            return await self._collect(identity, following, plan, wait)
        finally:
            following.release()
            self.connection.end()

    async def _collect(
        self, identity: Identity, following: Following, plan: Plan, wait: int
    ) -> Response | None:
        writer = self.writer
        left = identity.expires - time.time() if identity.expires is not None else math.inf
        self.connection.answer(Frame(greeting(self.connection.id, identity)))
        try:
            subscriptions = await following.begin(
                self.connection, plan, hold=self.hold, page=self.page, at_once=True
            )
        except StoreError:
            raise unavailable() from None
        present = [one.presence for one in subscriptions if one.presence is not None]
        # The greeting, one answer a topic and who is there; a replay may have brought more by now.
        begun = 1 + len(following.refused) + len(subscriptions) + sum(o.told for o in present)
        await self._catch_up(subscriptions, present)
        # Without a start there is a cursor to tell; with one that is lost, a reset.
        is_first = any(plan.starts[one.live.name] is None for one in following.followed)
        if wait and not is_first and len(writer.frames) == begun and not _lost(writer.frames):
            if not await self._wait(min(wait, left), begun):
                return None
            if left <= wait and len(writer.frames) == begun:
                raise error_of(unauthorized())  # the token has run out meanwhile
            if not writer.full and len(writer.frames) > begun:
                await asyncio.sleep(GATHER_SECONDS)
            await self._catch_up(subscriptions, present)
        if self.failed:
            raise unavailable()
        # These first: asking for them lets what is on its way come into the answer.
        presences = [(one.live.name, one.place) for one in present]
        places = dict(_places(writer.frames))
        in_order = [(name, places[name]) for name in plan.starts if name in places]
        in_order += [(name, place) for name, place in presences if place is not None]
        more = any(one.catching_up and one.position != one.topic.position for one in subscriptions)
        text = answer_text(writer.frames, in_order, more=more)
        if self.request.method == "HEAD":
            return Response.of_json(text)  # whose ETag would pass for that of events never sent
        etag = etag_of(self.connection.user, following.refused, in_order)
        return Response.of_json(text, ETag=etag)

    async def _catch_up(
        self, subscriptions: Sequence[Subscription], present: Sequence[PresenceSubscription]
    ) -> None:
        """Wait until all are live, or nothing more fits, or the store takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_SECONDS
        while not self.writer.full and not self.failed and (left := deadline - loop.time()) > 0:
            parts: list[Subscription | PresenceSubscription] = [*subscriptions, *present]
            catching_up = [task for one in parts if (task := one.catching_up)]
            if not catching_up:
                return
            changed = asyncio.create_task(self.writer.changed())
            waiting = [*catching_up, changed]
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()

    async def _wait(self, seconds: float, begun: int) -> bool:
        """Wait until something came or the time is over; False if the client left."""
        gone = asyncio.create_task(_disconnect(self.receive))
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            while not self.failed and len(self.writer.frames) == begun:
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


def _places(frames: Sequence[Frame]) -> list[tuple[str, Cursor]]:
    return [frame.place for frame in frames if frame.place is not None]


def _lost(frames: Sequence[Frame]) -> list[str]:
    """Return the topics whose place was lost: the client has to fetch their state anew."""
    resets = [frame.place[0] for frame in frames if frame.kind is Kind.RESET and frame.place]
    return list(dict.fromkeys(resets))


def answer_text(
    frames: Sequence[Frame], places: Sequence[tuple[str, Cursor]], *, more: bool
) -> str:
    """Return the JSON text of an answer, around the frames as they were encoded.

    Args:
        frames: what a stream would have brought, in its order.
        places: where each topic stands afterwards.
        more: whether the next poll has something already.
    """
    events = ",".join(frame.text for frame in frames if frame.is_event)
    others = ",".join(frame.text for frame in frames if not frame.is_event)
    cursor = compose(entry(*place) for place in places)
    fields = {"cursor": cursor, "reset": _lost(frames), "more": more}
    rest = json.dumps(fields, separators=(",", ":"))
    return f'{{"events":[{events}],"frames":[{others}],{rest[1:]}'


def etag_of(user: Any, refused: Sequence[str], places: Sequence[tuple[str, Cursor]]) -> str:
    """Return the ETag of an answer that ended at these places.

    A client whose last answer ended where the logs stand has nothing to fetch.
    """
    who = "" if user is None else str(user.pk)
    text = json.dumps([who, sorted(refused), [[name, str(cursor)] for name, cursor in places]])
    # Weak: the answers agree in what they tell, not in every byte.
    return f'W/"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'


def is_known(request: Request, etag: str) -> bool:
    """Tell whether the client has the answer with this ETag already.

    Source: RFC 9110, section 13.1.2.
    """
    known = parse_etags(request.headers.get("if-none-match", ""))
    return "*" in known or etag.removeprefix("W/") in (one.removeprefix("W/") for one in known)


def read_wait(request: Request) -> int:
    """Return how many seconds the client would wait for something new.

    Raises:
        HttpError: it is no number.
    """
    return request.number("wait", 0, 0, MAX_WAIT_SECONDS)


def read_limit(request: Request) -> int:
    """Return how many events the client wants at most.

    Raises:
        HttpError: it is no number.
    """
    return request.number("limit", MAX_EVENTS, 1, MAX_EVENTS)
