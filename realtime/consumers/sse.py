"""Server-sent events: ``GET sse?topic=a&topic=b``, an event stream of our frames.

A plain ``EventSource`` resumes without further code: each ``id:`` is a composite cursor of all
topics, and the browser sends it back as ``Last-Event-ID``.

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
from realtime.consumers.handlers import welcome_for
from realtime.consumers.http import Receive, Request, answer, encode_headers
from realtime.consumers.http_topics import FollowedTopics, TopicQuery, read_query
from realtime.consumers.rate_limits import limit_request
from realtime.hub import get_hub
from realtime.hub.connection import Connection
from realtime.hub.member_writer import STREAM_HOLD_SECONDS
from realtime.protocol.encoders import Frame
from realtime.protocol.frames import CloseCode, frame
from realtime.repeated_errors import log_error
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure, writer_for
from realtime.writers.stream import StreamFraming

__all__ = ["event_stream"]

logger = logging.getLogger("realtime")

RETRY_MS = (1_000, 3_000)  # until a browser reconnects; random, so that reconnects are spread
PADDING = b":" + b" " * 2_048 + b"\n"  # fills the buffers of some proxies and antivirus programs

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform, private",  # a proxy that compresses also buffers
    "X-Accel-Buffering": "no",  # tells nginx not to buffer the response
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie, Authorization, Origin",
}


async def event_stream(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one event stream, as an ASGI application."""
    stream = _Stream(receive, send)
    try:
        request = Request(scope)
        await answer(request, send, is_secure(send), stream.open(request))
        # Free the request now: it would otherwise be a third of the memory of an open stream.
        del scope, request
        if stream.connection is not None:
            await stream.wait_for_disconnect()
    except asyncio.CancelledError:
        if not stream.is_closed:
            raise
    finally:
        stream.end()


class _Stream:
    """One client's stream; an instance lives as long as its connection.

    Attributes:
        connection: the client in the hub; None until the request is answered, and for a HEAD
            request or a refused one.
        expiry: closes the stream when the client's token expires.
        closing: the task that closes the stream, once ``close()`` was called.
        task: the task that serves the stream.
        is_closed: whether the server closed the stream and cancelled ``task``.
    """

    __slots__ = ("closing", "connection", "expiry", "is_closed", "receive", "send", "task")

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.send = send
        self.connection: Connection | None = None
        self.expiry: Expiry | None = None
        self.closing: asyncio.Task[None] | None = None
        self.task = asyncio.current_task()
        self.is_closed = False

    async def open(self, request: Request) -> None:
        """Answer the request and follow its topics.

        Raises:
            Exception: the request is refused or cannot be served; nothing was sent.
        """
        request.check(("GET", "HEAD"))
        request.check_origin(is_secure(self.send))
        limits = conf.get().limits
        query = read_query(request, limits.topics)
        identity = await request.identify()
        if delay := limit_request(request.scope, identity.user, len(query.starts)):
            await asyncio.sleep(delay)
        topics = await FollowedTopics.open(get_hub(), identity, list(query.starts))
        try:
            if request.method == "HEAD":
                await self._start(request)
                await self.send({"type": "http.response.body", "body": b""})
                return
            wants_ids = request.value("ids") != "0"
            form = StreamFraming(
                query.cursors if wants_ids else None, single_topic=len(query.starts) == 1
            )
            writer = writer_for(self.send, form)
            self.connection = Connection(
                topics.hub, identity.user, writer, limits.buffer_bytes, self.close
            )
            self.expiry = Expiry(identity, lambda: self.close(CloseCode.SIGNED_OUT))
            await self._begin(self.connection, request, identity, topics, query)
        finally:
            topics.release()

    async def _begin(
        self,
        connection: Connection,
        request: Request,
        identity: Identity,
        topics: FollowedTopics,
        query: TopicQuery,
    ) -> None:
        """Send the head and the first frames, and subscribe to the topics."""
        try:
            await self._start(request)
            retry = b"retry: %d\n" % random.randint(*RETRY_MS)
            await self.send(
                {"type": "http.response.body", "body": PADDING + retry, "more_body": True}
            )
        except Exception as error:
            logger.debug("a client closed its event stream before it began: %s", error)
            connection.end()
            self.connection = None
            return
        connection.answer(Frame(welcome_for(connection.id, identity)))
        try:
            await topics.subscribe(
                connection, query, hold=STREAM_HOLD_SECONDS, visitor_id=connection.id
            )
        except Exception as error:
            # The browser reconnects with the last id that it received.
            log_error("stream", error, "an event stream could not begin")
            self.close(CloseCode.FAILED)

    async def wait_for_disconnect(self) -> None:
        """Wait until the client disconnects."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _start(self, request: Request) -> None:
        headers = encode_headers(HEADERS | request.cors(is_secure(self.send)))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    def close(self, code: CloseCode) -> None:
        """Send the reason, then end the stream; later calls do nothing."""
        if self.closing is None and self.connection is not None:
            self.connection.push(Frame(frame("closing", reason=code.reason)))
            self.closing = asyncio.create_task(self._close(self.connection, code))

    async def _close(self, connection: Connection, code: CloseCode) -> None:
        await connection.writer.close(int(code))
        # `receive` reports no disconnect if the server keeps the connection open, so stop the task.
        self.is_closed = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Release the connection, its subscriptions and its tasks."""
        if self.expiry is not None:
            self.expiry.cancel()
        if self.connection is not None:
            self.connection.end()
        if self.closing is not None:
            self.closing.cancel()
