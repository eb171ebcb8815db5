"""The link over an event stream; each command is sent with a separate request.

It behaves like the WebSocket link: the same commands have the same answers.
The URL of a stream contains its topics, so a change of topics reopens the stream, which
resumes from the topics' cursors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import httpx

from realtime.client.links import (
    OPEN_SECONDS,
    Address,
    Frame,
    LinkClosed,
    OnFrame,
    Silence,
    closed_by_status,
    decode,
)
from realtime.exceptions import InvalidCursor
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode

__all__ = ["UNREACHED", "EventStream", "StreamLink"]

BATCH_SECONDS = 0.05  # delay before reopening, which combines changes of topics
HEAD_SECONDS = 60.0  # timeout for the response's start; after it, the silence timeout applies
MAX_BYTES = 2**24  # maximum size of a line; the same as for a WebSocket frame
PROXY_BYTES = 8_000  # longest URL or header for proxies: nginx limits the whole line to 8 KB
DAPHNE_BYTES = 16_384 - len("GET  HTTP/1.1")  # longest URL; Daphne disconnects at longer ones
TOO_LONG = (
    "the topics of this client do not fit into a URL that the server or a proxy accepts: follow "
    "fewer, give them shorter names, or raise the limit (nginx: large_client_header_buffers)"
)
UNREACHED = "unreached"  # error code for a command that was not sent, because connecting failed

_HUNG_UP = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_REASONS = {code.reason: int(code) for code in CloseCode}


class EventStream:
    """Parses an event stream whose entries each have one line of data.

    ``httpx`` cannot split the lines, because it also splits at characters that are allowed inside
    JSON strings.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Add received bytes, and return the data of the entries that they complete.

        Raises:
            LinkClosed: a line is longer than ``MAX_BYTES``.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_BYTES:
            raise LinkClosed(1006, f"a line of the event stream is longer than {MAX_BYTES} bytes")
        return (line[5:].strip() for line in lines if line.startswith(b"data:"))


@dataclass
class _FollowedTopic:
    """A topic to follow.

    Attributes:
        id: the id of the subscribe, until it is answered.
        since: the time to start from, as ``@`` and seconds since 1970, or "".
        last: the number of newest events to start with, or "".
        cursor: the cursor to resume from; if set, ``since`` and ``last`` are ignored.
    """

    id: int | None
    since: str
    last: str
    cursor: Cursor | None

    def start(self, in_url: bool) -> dict[str, str]:
        """Return the fields for the URL; ``in_url`` tells whether cursors are sent in the URL."""
        if self.cursor is None:
            return {"since": self.since, "last": self.last}
        return {"since": str(self.cursor)} if in_url else {}


class StreamLink:
    """A link over an event stream: frames arrive as its data, commands are separate requests."""

    name = "sse"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._topics: dict[str, _FollowedTopic] = {}
        # The topics of the open stream. Each subscribe makes a new object, so events of an earlier
        # subscription to the same topic are not delivered to the new one.
        self._requested: dict[str, _FollowedTopic] = {}
        self._length = 0  # of the stream's URL or Last-Event-ID header, whichever is longer
        self._cursors_in_url = False  # True if a proxy removes the Last-Event-ID header
        self._changed = asyncio.Event()  # the topics have changed
        self._welcomed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self._closing = ""  # the reason of the ``closing`` frame
        self._has_expired = False  # whether a command was refused because of the token
        self._http: httpx.AsyncClient | None = None

    async def open(self, on_frame: OnFrame) -> None:
        """Open a stream without topics and wait for the welcome frame; see ``Link``."""
        self._on_frame = on_frame
        authorization = await self._address.authorization()
        self._http = httpx.AsyncClient(
            headers={**self._address.headers, **authorization, "Accept-Encoding": "identity"},
            verify=self._address.ssl,
            timeout=httpx.Timeout(OPEN_SECONDS, read=HEAD_SECONDS),
        )
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await _wait_first(self._welcomed.wait(), self._reading)
        except TimeoutError as error:
            raise LinkClosed(1006, f"{self._address.of('sse')} did not answer") from error
        if not self._welcomed.is_set():
            self._reading.result()  # raises

    async def run(self) -> None:
        """Read the stream, and reopen it when the topics change; see ``Link``."""
        while True:
            assert self._reading is not None
            await _wait_first(self._changed.wait(), self._reading)
            if self._has_expired:
                raise LinkClosed(CloseCode.SIGNED_OUT, "the server refused the token of a command")
            if not self._reading.done():
                await asyncio.sleep(BATCH_SECONDS)
                self._reading.cancel()
                await asyncio.wait([self._reading])
            if not self._reading.cancelled():
                self._reading.result()  # raises, unless _read() dropped topics
            self._changed.clear()
            self._reading = asyncio.create_task(self._read())

    # Topics

    def _request(self) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers of a stream for the current topics."""
        self._requested = dict(self._topics)
        query = [("ids", "0"), *(("topic", name) for name in self._requested or [""])]
        headers = {"Accept": "text/event-stream"}
        cursors = {
            name: topic.cursor
            for name, topic in self._requested.items()
            if topic.cursor is not None
        }
        if cursors and not self._cursors_in_url:
            headers["Last-Event-ID"] = compose([entry(*item) for item in cursors.items()])
        starts = [topic.start(in_url=self._cursors_in_url) for topic in self._requested.values()]
        for field in ("since", "last"):
            if any(start.get(field) for start in starts):
                query += [(field, start.get(field, "")) for start in starts]
        url = f"{self._address.of('sse')}&{urlencode(query)}"
        target = len(url) - len(self._address.origin)
        self._length = max(target, len(headers.get("Last-Event-ID", "")))
        return url, headers

    async def _read(self) -> None:
        """Read one stream to its end; return only if it had to drop topics.

        Topics are dropped if the server refuses them, or if they do not fit into the request.

        Raises:
            LinkClosed: the stream ended for another reason.
        """
        assert self._http is not None
        full, headers = self._request()
        url = self._address.of("sse")
        has_response = False
        try:
            async with self._http.stream("GET", full, headers=headers) as response:
                has_response = True
                if response.status_code != 200:
                    await response.aread()
                    self._refuse(response)
                    return
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise LinkClosed(1006, f"{url} is not an event stream", blocked=True)
                await self._receive(response)
        except httpx.InvalidURL:  # httpx refuses URLs that are longer than 64 KB
            self._drop_newest()
            return
        except httpx.HTTPError as error:
            if has_response or self._length <= DAPHNE_BYTES or not isinstance(error, _HUNG_UP):
                raise LinkClosed(1006, f"{url}: {error!r}") from error
            self._drop_newest()
            return
        raise LinkClosed(_REASONS.get(self._closing, 1006), self._closing or "the stream ended")

    async def _receive(self, response: httpx.Response) -> None:
        stream = EventStream()
        silence = Silence()
        chunks = response.aiter_bytes()
        while True:
            try:
                async with asyncio.timeout(silence.seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise LinkClosed(1006, f"no frame arrived for {silence.seconds:g} s") from error
            for data in stream.feed(chunk):
                if frame := decode(data):
                    silence.update(frame)
                    self._process(frame)

    def _refuse(self, response: httpx.Response) -> None:
        """Drop the topics that made the server refuse the stream.

        Raises:
            LinkClosed: the server refused the stream for another reason.
        """
        error = _error_of(response)
        code, status = error.get("code"), response.status_code
        if status == 403 and code == "forbidden":
            refused = list(self._requested)
        elif error.get("topic") in list(self._requested):
            refused = [error["topic"]]
        elif code and status == 400:
            refused = [name for name, topic in self._requested.items() if topic.id is not None]
        else:
            refused = []
        if not code and self._is_too_long(status):
            self._drop_newest()
            return
        if not refused:
            url = self._address.of("sse")
            raise closed_by_status(status, url, response.headers, _explanation(response))
        for name in filter(self._current, refused):
            self._drop(name, error)

    def _is_too_long(self, status: int) -> bool:
        """Return whether the status of a proxy or of Daphne means that the request is too long."""
        is_too_long = status in (414, 431) or (status == 400 and self._length > PROXY_BYTES)
        return is_too_long and self._requested != {}

    def _drop_newest(self) -> None:
        """Drop topics, newest first, until the others fit into a request."""
        limit = PROXY_BYTES if self._length > PROXY_BYTES else self._length // 2
        error = {"code": "too_many_topics", "message": TOO_LONG}
        for name in reversed(self._requested):
            if self._current(name):
                self._drop(name, error)
            self._request()
            if self._length <= limit:
                break

    def _current(self, name: str) -> _FollowedTopic | None:
        """Return the topic if the open stream carries its newest subscription, otherwise None."""
        followed = self._requested.get(name)
        return followed if followed is not None and followed is self._topics.get(name) else None

    def _drop(self, name: str, error: Frame) -> None:
        """Stop following a topic, and report that as the WebSocket link would."""
        followed = self._topics.pop(name)
        if followed.id is not None:
            self._on_frame({**error, "type": "error", "topic": name, "id": followed.id})
        else:
            fields = {"reason": error.get("code"), "message": error.get("message")}
            self._on_frame({"type": "unsubscribed", "topic": name, **fields})

    def _process(self, frame: Frame) -> None:
        """Pass on a frame of the stream in the form that it would have on a WebSocket."""
        kind, name = frame["type"], str(frame.get("topic"))
        if kind == "closing":
            self._closing = str(frame.get("reason", ""))
        elif kind == "welcome":
            self._welcomed.set()
        followed = self._current(name)
        if followed is None:
            if kind in ("welcome", "closing"):
                self._on_frame(frame)
            return  # it belongs to a subscription that has ended
        if kind == "error":
            self._drop(name, frame)
        elif kind == "subscribed":
            if self._has_lost_cursor(followed, frame):
                self._resend_cursors()
            else:
                self._confirm(followed, frame)
        else:
            followed.cursor = _cursor_of(frame) or followed.cursor
            self._on_frame(frame)

    def _has_lost_cursor(self, followed: _FollowedTopic, frame: Frame) -> bool:
        """Return whether a proxy has removed the header with the cursor of a topic.

        Without the cursor, the server sends new events only.
        """
        was_sent = followed.cursor is not None and not self._cursors_in_url
        return was_sent and not isinstance(frame.get("recovered"), bool)

    def _resend_cursors(self) -> None:
        """Reopen the stream with the cursors in the URL, and ignore frames until then."""
        self._cursors_in_url = True
        for name in filter(self._current, self._requested):
            self._topics[name] = replace(self._topics[name])
        self._changed.set()

    def _confirm(self, followed: _FollowedTopic, frame: Frame) -> None:
        followed.cursor = _cursor_of(frame)
        if followed.id is not None:
            answer = {**frame, "id": followed.id}
            followed.id = None
            self._on_frame(answer)
        elif frame.get("recovered") is False:
            self._on_frame({**frame, "type": "reset", "reason": "trimmed"})

    # Commands

    def send(self, frame: Frame) -> None:
        """Change the topics, or send the command in a separate request; see ``Link``."""
        name = frame.get("topic", "")
        if frame["type"] == "subscribe":
            since, cursor = frame.get("since", ""), None
            if since and not since.startswith("@"):
                since, cursor = "", Cursor.parse(since)
            last = str(frame.get("last", ""))
            self._topics[name] = _FollowedTopic(frame["id"], since, last, cursor)
            self._changed.set()
        elif frame["type"] == "unsubscribe":
            self._topics.pop(name, None)
            self._changed.set()
            answer = {"type": "unsubscribed", "topic": name, "id": frame["id"], "reason": "asked"}
            asyncio.get_running_loop().call_soon(self._on_frame, answer)
        else:
            task = asyncio.create_task(self._post(frame))
            self._posts.add(task)
            task.add_done_callback(self._posts.discard)

    async def _post(self, frame: Frame) -> None:
        assert self._http is not None
        try:
            response = await self._http.post(
                self._address.of("send"),
                content=json.dumps(frame),
                # The server requires an allowed origin for requests with cookies.
                headers={"Content-Type": "application/json", "Origin": self._address.origin},
                # An action can take any time; the stream detects a broken network.
                timeout=httpx.Timeout(OPEN_SECONDS, read=None),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            answer: Frame = {"type": "error", "code": UNREACHED, "message": repr(error)}
        except httpx.HTTPError:
            answer = {"type": "lost"}
        else:
            answer = _answer_of(response)
            if response.status_code == 401 and self._address.token.is_renewable:
                # The stream can outlive its token; the next link has a new one.
                self._has_expired = True
                self._changed.set()
                answer = {"type": "error", "code": UNREACHED, "message": "the token has expired"}
        self._on_frame({**answer, "id": frame["id"]})

    async def close(self) -> None:
        """Cancel all requests; see ``Link``."""
        tasks = [*self._posts, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()


async def _wait_first(coroutine: Coroutine[Any, Any, Any], reading: asyncio.Task[None]) -> None:
    """Wait until one of the two has finished; ignore the result and any exception."""
    task = asyncio.create_task(coroutine)
    try:
        await asyncio.wait([task, reading], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()


def _error_of(response: httpx.Response) -> Frame:
    """Return the error frame in the body of a response; empty if it is not from our server."""
    frame = decode(response.content)
    if frame is None or frame["type"] != "error" or not isinstance(frame.get("code"), str):
        return {}
    return frame


def _explanation(response: httpx.Response) -> str:
    error = _error_of(response)
    return "; ".join(str(error[key]) for key in ("code", "message", "hint") if error.get(key))


def _answer_of(response: httpx.Response) -> Frame:
    """Return the answer to a command; ``lost`` if it is unknown whether the command has run."""
    if error := _error_of(response):
        return error
    if response.is_success and (frame := decode(response.content)):
        return frame
    if 400 <= response.status_code < 500:
        message = f"a proxy answered with HTTP {response.status_code}; the command has not run"
        return {"type": "error", "code": f"http_{response.status_code}", "message": message}
    return {"type": "lost"}


def _cursor_of(frame: dict[str, Any]) -> Cursor | None:
    try:
        return Cursor.parse(frame["cursor"])
    except (KeyError, TypeError, InvalidCursor):
        return None
