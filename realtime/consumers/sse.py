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
from realtime.consumers.following import Following, Plan, read_plan
from realtime.consumers.http import Receive, Request, answer, encoded
from realtime.consumers.rates import take_turn
from realtime.consumers.running import greeting
from realtime.encoders import Frame
from realtime.exceptions import StoreError
from realtime.frames import CloseCode, frame
from realtime.hub import get_hub
from realtime.hub.connection import Connection
from realtime.hub.tracker import STREAM_HOLD_SECONDS
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure, writer_for
from realtime.writers.stream import StreamForm

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
    request = Request(scope)
    await answer(request, send, is_secure(send), _Stream(request, receive, send).serve())


class _Stream:
    """One client's stream; an instance lives as long as its connection."""

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self.request = request
        self.receive = receive
        self.send = send
        self.closing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._left = False

    async def serve(self) -> None:
        """Run it from the request to its end.

        Raises:
            Exception: it is refused or cannot be served; nothing was sent.
        """
        request = self.request
        request.check(("GET", "HEAD"))
        request.check_origin(is_secure(self.send))
        limits = conf.get().limits
        plan = read_plan(request, limits.topics)
        identity = await request.identify()
        if pause := take_turn(request.scope, identity.user):
            await asyncio.sleep(pause)
        following = await Following.open(get_hub(), identity, list(plan.starts))
        if request.method == "HEAD":
            following.release()
            await self._start()
            await self.send({"type": "http.response.body", "body": b""})
            return
        wants_ids = request.value("ids") != "0"
        form = StreamForm(plan.places if wants_ids else None, alone=len(plan.starts) == 1)
        writer = writer_for(self.send, form)
        self.connection = Connection(
            following.hub, identity.user, writer, limits.buffer_bytes, self.close
        )
        self._task = asyncio.current_task()
        expiry = Expiry(identity, lambda: self.close(CloseCode.SIGNED_OUT))
        try:
            await self._run(identity, following, plan)
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            expiry.cancel()
            following.release()
            self.connection.end()
            if self.closing is not None:
                self.closing.cancel()

    async def _run(self, identity: Identity, following: Following, plan: Plan) -> None:
        """Answer, follow, and stay until the client is gone."""
        try:
            await self._start()
            retry = b"retry: %d\n" % random.randint(*RETRY_MS)
            await self.send(
                {"type": "http.response.body", "body": PADDING + retry, "more_body": True}
            )
        except Exception as error:
            logger.debug("a stream's client left at once: %s", error)
            return
        self.connection.answer(Frame(greeting(self.connection.id, identity)))
        try:
            page = self.connection.id
            await following.begin(self.connection, plan, hold=STREAM_HOLD_SECONDS, page=page)
        except Exception as error:
            # The client comes back by itself, with the ids that it had.
            is_known = isinstance(error, StoreError)
            logger.error("a stream could not begin: %s", error, exc_info=not is_known)
            self.close(CloseCode.FAILED)
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _start(self) -> None:
        headers = encoded(HEADERS | self.request.cors(is_secure(self.send)))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    def close(self, code: CloseCode) -> None:
        """Say why, then end the stream; only the first reason counts."""
        if self.closing is None:
            self.connection.push(Frame(frame("closing", reason=code.reason)))
            self.closing = asyncio.create_task(self._close(code))

    async def _close(self, code: CloseCode) -> None:
        await self.connection.writer.close(int(code))
        # Nothing tells of the end where the server did not end the connection; so we leave.
        self._left = True
        if self._task is not None:
            self._task.cancel()
