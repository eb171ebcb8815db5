"""Server-sent events: ``GET sse?topic=a&topic=b``, an event stream whose data are our frames.

A bare ``EventSource`` resumes by itself, since each ``id:`` is a composite cursor of all topics,
which the browser sends back as ``Last-Event-ID``.

Source: HTML, section 9.2.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from realtime import conf
from realtime.auth.users import Expiry, Identity
from realtime.consumers.handlers import greeting
from realtime.consumers.http import Receive, Request, answer, encoded
from realtime.consumers.http_topics import Following, Plan, read_plan
from realtime.consumers.rate_limits import take_turn
from realtime.exceptions import StoreError
from realtime.hub import get_hub
from realtime.hub.connection import Connection
from realtime.hub.member_writer import STREAM_HOLD_SECONDS
from realtime.protocol.encoders import Frame
from realtime.protocol.frames import CloseCode, frame
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure, writer_for
from realtime.writers.stream import StreamFraming

__all__ = ["event_stream"]

logger = logging.getLogger("realtime")

RETRY_MS = (1_000, 3_000)  # until a browser comes back; another time for each, so no herd
PADDING = b":" + b" " * 2_048 + b"\n"  # what some proxies and antivirus programs hold back

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform, private",  # a proxy that compresses also buffers
    "X-Accel-Buffering": "no",  # nginx's word for a response that must not be buffered
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie, Authorization, Origin",
}


async def event_stream(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one event stream, as an ASGI application."""
    stream = _Stream(receive, send)
    try:
        request = Request(scope)
        await answer(request, send, is_secure(send), stream.open(request))
        # What was asked is not kept as long as the stream: that would be a third of its memory.
        del scope, request
        if stream.connection is not None:
            await stream.stay()
    except asyncio.CancelledError:
        if not stream.has_left:
            raise
    finally:
        stream.end()


class _Stream:
    """One client's stream; an instance lives as long as its connection.

    Attributes:
        connection: None until it is answered, and for who is refused or asks for the head alone.
        has_left: it was closed by us.
    """

    __slots__ = ("closing", "connection", "expiry", "has_left", "receive", "send", "task")

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.send = send
        self.connection: Connection | None = None
        self.expiry: Expiry | None = None
        self.closing: asyncio.Task[None] | None = None
        self.task = asyncio.current_task()
        self.has_left = False

    async def open(self, request: Request) -> None:
        """Answer the request and follow its topics.

        Raises:
            Exception: it is refused or cannot be served; nothing was sent.
        """
        request.check(("GET", "HEAD"))
        request.check_origin(is_secure(self.send))
        limits = conf.get().limits
        plan = read_plan(request, limits.topics)
        identity = await request.identify()
        if pause := take_turn(request.scope, identity.user):
            await asyncio.sleep(pause)
        following = await Following.open(get_hub(), identity, list(plan.starts))
        try:
            if request.method == "HEAD":
                await self._start(request)
                await self.send({"type": "http.response.body", "body": b""})
                return
            wants_ids = request.value("ids") != "0"
            framing = StreamFraming(
                plan.places if wants_ids else None, single_topic=len(plan.starts) == 1
            )
            writer = writer_for(self.send, framing)
            self.connection = Connection(
                following.hub, identity.user, writer, limits.buffer_bytes, self.close
            )
            self.expiry = Expiry(identity, lambda: self.close(CloseCode.SIGNED_OUT))
            await self._begin(self.connection, request, identity, following, plan)
        finally:
            following.release()

    async def _begin(
        self,
        connection: Connection,
        request: Request,
        identity: Identity,
        following: Following,
        plan: Plan,
    ) -> None:
        """Send the head and what comes first, and follow."""
        try:
            await self._start(request)
            retry = b"retry: %d\n" % random.randint(*RETRY_MS)
            await self.send(
                {"type": "http.response.body", "body": PADDING + retry, "more_body": True}
            )
        except Exception as error:
            logger.debug("a stream's client left at once: %s", error)
            connection.end()
            self.connection = None
            return
        connection.answer(Frame(greeting(connection.id, identity)))
        try:
            page = connection.id
            await following.begin(connection, plan, hold=STREAM_HOLD_SECONDS, page=page)
        except Exception as error:
            # The client comes back by itself, with the ids that it had.
            is_known = isinstance(error, StoreError)
            logger.error("a stream could not begin: %s", error, exc_info=not is_known)
            self.close(CloseCode.FAILED)

    async def stay(self) -> None:
        """Wait until the client is gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _start(self, request: Request) -> None:
        headers = encoded(HEADERS | request.cors(is_secure(self.send)))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    def close(self, code: CloseCode) -> None:
        """Say why, then end the stream; only the first reason counts."""
        if self.closing is None and self.connection is not None:
            self.connection.push(Frame(frame("closing", reason=code.reason)))
            self.closing = asyncio.create_task(self._close(self.connection, code))

    async def _close(self, connection: Connection, code: CloseCode) -> None:
        await connection.writer.close(int(code))
        # Nothing tells of the end where the server did not end the connection; so we leave.
        self.has_left = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Give back all that it held."""
        if self.expiry is not None:
            self.expiry.cancel()
        if self.connection is not None:
            self.connection.end()
        if self.closing is not None:
            self.closing.cancel()
