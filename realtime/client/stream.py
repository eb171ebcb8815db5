"""The link over an event stream, with a request of its own for each command.

It looks like a WebSocket from outside: the same commands, the same answers.
A stream's topics stand in its URL, so that it is opened again when they change, from the places
that were reached.
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
    Hear,
    LinkClosed,
    Silence,
    decode,
    refused,
)
from realtime.exceptions import InvalidCursor
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode

__all__ = ["UNREACHED", "EventStream", "StreamLink"]

BATCH_SECONDS = 0.05  # that a change of topics waits for the next one
HEAD_SECONDS = 60.0  # until a stream begins; from then on its heartbeats count, and come sooner
MAX_BYTES = 2**24  # of a line, as of a WebSocket frame
LONG = 8_000  # bytes of a URL, or of a header, that proxies take: nginx 8 KB with what is around it
LONGER = 16_384 - len("GET  HTTP/1.1")  # of a URL; at a longer one Daphne hangs up without a word
TOO_LONG = (
    "the topics of this client do not fit into a URL that the server, or a proxy, takes: follow "
    "fewer, give them shorter names, or raise the limit (nginx: large_client_header_buffers)"
)
UNREACHED = "unreached"  # code of a command that was not sent, since nobody listened

_HUNG_UP = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_REASONS = {code.reason: int(code) for code in CloseCode}


class EventStream:
    """Reads the data of an event stream's entries, one line each as the server writes them.

    Not by httpx' lines, which end at characters that JSON may have inside its strings.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take some bytes; return the data that they complete.

        Raises:
            LinkClosed: a line has no end.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_BYTES:
            raise LinkClosed(1006, f"a line of the event stream is longer than {MAX_BYTES} bytes")
        return (line[5:].strip() for line in lines if line.startswith(b"data:"))


@dataclass
class _FollowedTopic:
    """A topic that is wanted.

    Attributes:
        id: of the subscribe that has no answer yet.
        since: the moment that it begins at, or an empty text.
        last: how many of the newest events it begins with, or an empty text.
        place: what was reached; it goes before the others.
    """

    id: int | None
    since: str
    last: str
    place: Cursor | None

    def start(self, in_url: bool) -> dict[str, str]:
        """Return the fields of the URL; a place is in it where it cannot be in the header."""
        if self.place is None:
            return {"since": self.since, "last": self.last}
        return {"since": str(self.place)} if in_url else {}


class StreamLink:
    """Frames as the data of an event stream, commands as requests."""

    name = "sse"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._topics: dict[str, _FollowedTopic] = {}
        # The topics of the stream that is open. One that was left and is followed again is another
        # object: what this stream still brings of it is not of the new subscription.
        self._asked: dict[str, _FollowedTopic] = {}
        self._length = 0  # of its URL, or of the header with the places if that is longer
        self._is_bare = False  # something on the way takes the header with the places off
        self._changed = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self._closing = ""
        self._http: httpx.AsyncClient | None = None

    async def open(self, hear: Hear) -> None:
        """Open a stream of no topics yet, and take its welcome."""
        self._hear = hear
        self._http = httpx.AsyncClient(
            headers={**self._address.headers, "Accept-Encoding": "identity"},
            verify=self._address.ssl,
            timeout=httpx.Timeout(OPEN_SECONDS, read=HEAD_SECONDS),
        )
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await _first(self._welcomed.wait(), self._reading)
        except TimeoutError as error:
            raise LinkClosed(1006, f"{self._address.of('sse')} did not answer") from error
        if not self._welcomed.is_set():
            self._reading.result()  # raises

    async def run(self) -> None:
        """Read streams, one after the other."""
        while True:
            assert self._reading is not None
            await _first(self._changed.wait(), self._reading)
            if not self._reading.done():
                await asyncio.sleep(BATCH_SECONDS)
                self._reading.cancel()
                await asyncio.wait([self._reading])
            if not self._reading.cancelled():
                self._reading.result()  # raises, unless some of its topics were refused
            self._changed.clear()
            self._reading = asyncio.create_task(self._read())

    # Topics

    def _request(self) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers of the next stream."""
        self._asked = dict(self._topics)
        query = [("ids", "0"), *(("topic", name) for name in self._asked or [""])]
        headers = {"Accept": "text/event-stream"}
        places = [(name, one.place) for name, one in self._asked.items() if one.place is not None]
        if places and not self._is_bare:
            headers["Last-Event-ID"] = compose([entry(name, place) for name, place in places])
        starts = [one.start(in_url=self._is_bare) for one in self._asked.values()]
        for field in ("since", "last"):
            if any(start.get(field) for start in starts):
                query += [(field, start.get(field, "")) for start in starts]
        url = f"{self._address.of('sse')}&{urlencode(query)}"
        target = len(url) - len(self._address.origin)
        self._length = max(target, len(headers.get("Last-Event-ID", "")))
        return url, headers

    async def _read(self) -> None:
        """Read one stream to its end; return if some of its topics were refused or did not fit.

        Raises:
            LinkClosed: it ended.
        """
        assert self._http is not None
        full, headers = self._request()
        url = self._address.of("sse")
        answered = False
        try:
            async with self._http.stream("GET", full, headers=headers) as response:
                answered = True
                if response.status_code != 200:
                    await response.aread()
                    self._refuse(response)
                    return
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise LinkClosed(1006, f"{url} is no event stream", blocked=True)
                await self._follow(response)
        except httpx.InvalidURL:  # the longest one that httpx sends has 64 KB
            self._shorten()
            return
        except httpx.HTTPError as error:
            if answered or self._length <= LONGER or not isinstance(error, _HUNG_UP):
                raise LinkClosed(1006, f"{url}: {error!r}") from error
            self._shorten()
            return
        raise LinkClosed(_REASONS.get(self._closing, 1006), self._closing or "the stream ended")

    async def _follow(self, response: httpx.Response) -> None:
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
                raise LinkClosed(1006, f"nothing came for {silence.seconds:g} s") from error
            for data in stream.feed(chunk):
                if frame := decode(data):
                    silence.heed(frame)
                    self._take(frame)

    def _refuse(self, response: httpx.Response) -> None:
        """Take the refusal of a whole stream.

        Raises:
            LinkClosed: it is not about the topics.
        """
        error = _error_of(response)
        code, status = error.get("code"), response.status_code
        if status == 403 and code == "forbidden":
            blamed = list(self._asked)
        elif error.get("topic") in list(self._asked):
            blamed = [error["topic"]]
        elif code and status == 400:
            blamed = [name for name, one in self._asked.items() if one.id is not None]
        else:
            blamed = []
        if not code and self._is_too_long(status):
            self._shorten()
            return
        if not blamed:
            raise refused(status, self._address.of("sse"), response.headers, _said(response))
        for name in filter(self._current, blamed):
            self._drop(name, error)

    def _is_too_long(self, status: int) -> bool:
        """Tell whether a status, not of our application, says that the request is too long."""
        says = status in (414, 431) or (status == 400 and self._length > LONG)
        return says and self._asked != {}

    def _shorten(self) -> None:
        """Leave topics out, the newest first, until the rest fits."""
        most = LONG if self._length > LONG else self._length // 2
        error = {"code": "too_many_topics", "message": TOO_LONG}
        for name in reversed(self._asked):
            if self._current(name):
                self._drop(name, error)
            self._request()
            if self._length <= most:
                break

    def _current(self, name: str) -> _FollowedTopic | None:
        """Return what is wanted of a topic if the open stream was asked for just that."""
        followed = self._asked.get(name)
        return followed if followed is not None and followed is self._topics.get(name) else None

    def _drop(self, name: str, error: Frame) -> None:
        """Tell that a topic is not followed, or no more."""
        followed = self._topics.pop(name)
        if followed.id is not None:
            self._hear({**error, "type": "error", "topic": name, "id": followed.id})
        else:
            told = {"reason": error.get("code"), "message": error.get("message")}
            self._hear({"type": "unsubscribed", "topic": name, **told})

    def _take(self, frame: Frame) -> None:
        """Hand on a frame of the stream as a WebSocket would have brought it."""
        kind, name = frame["type"], str(frame.get("topic"))
        if kind == "closing":
            self._closing = str(frame.get("reason", ""))
        elif kind == "welcome":
            self._welcomed.set()
        followed = self._current(name)
        if followed is None:
            if kind in ("welcome", "closing"):
                self._hear(frame)
            return  # of a topic that was left a moment ago, also if it is followed again
        if kind == "error":
            self._drop(name, frame)
        elif kind == "subscribed":
            if self._is_stripped(followed, frame):
                self._ask_bare()
            else:
                self._begin(followed, frame)
        else:
            followed.place = _place(frame) or followed.place
            self._hear(frame)

    def _is_stripped(self, followed: _FollowedTopic, frame: Frame) -> bool:
        """Tell whether a topic's place did not reach the server, which begins with what is new."""
        is_sent = followed.place is not None and not self._is_bare
        return is_sent and not isinstance(frame.get("recovered"), bool)

    def _ask_bare(self) -> None:
        """Ask again for all topics, with their places in the URL; take nothing more till then."""
        self._is_bare = True
        for name in filter(self._current, self._asked):
            self._topics[name] = replace(self._topics[name])
        self._changed.set()

    def _begin(self, followed: _FollowedTopic, frame: Frame) -> None:
        followed.place = _place(frame)
        if followed.id is not None:
            answer = {**frame, "id": followed.id}
            followed.id = None
            self._hear(answer)
        elif frame.get("recovered") is False:
            self._hear({**frame, "type": "reset", "reason": "trimmed"})

    # Commands

    def send(self, frame: Frame) -> None:
        """Send a frame, or do what it asks for."""
        name = frame.get("topic", "")
        if frame["type"] == "subscribe":
            since, place = frame.get("since", ""), None
            if since and not since.startswith("@"):
                since, place = "", Cursor.parse(since)
            last = str(frame.get("last", ""))
            self._topics[name] = _FollowedTopic(frame["id"], since, last, place)
            self._changed.set()
        elif frame["type"] == "unsubscribe":
            self._topics.pop(name, None)
            self._changed.set()
            answer = {"type": "unsubscribed", "topic": name, "id": frame["id"], "reason": "asked"}
            asyncio.get_running_loop().call_soon(self._hear, answer)
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
                # A request with cookies has to say that it is from the site itself.
                headers={"Content-Type": "application/json", "Origin": self._address.origin},
                # An action takes as long as it takes; the stream beside it tells of a dead network.
                timeout=httpx.Timeout(OPEN_SECONDS, read=None),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            answer: Frame = {"type": "error", "code": UNREACHED, "message": repr(error)}
        except httpx.HTTPError:
            answer = {"type": "lost"}
        else:
            answer = _answer_of(response)
        self._hear({**answer, "id": frame["id"]})

    async def close(self) -> None:
        """End the requests."""
        tasks = [*self._posts, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()


async def _first(waiting: Coroutine[Any, Any, Any], reading: asyncio.Task[None]) -> None:
    """Wait until one of them is over; its outcome stays in the task."""
    task = asyncio.create_task(waiting)
    try:
        await asyncio.wait([task, reading], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()


def _error_of(response: httpx.Response) -> Frame:
    """Return the error frame that is the body of a refusal; empty if it is not from our server."""
    frame = decode(response.content)
    if frame is None or frame["type"] != "error" or not isinstance(frame.get("code"), str):
        return {}
    return frame


def _said(response: httpx.Response) -> str:
    error = _error_of(response)
    return "; ".join(str(error[key]) for key in ("code", "message", "hint") if error.get(key))


def _answer_of(response: httpx.Response) -> Frame:
    """Return the answer to a command; ``lost`` where it may have been run and nobody knows."""
    if error := _error_of(response):
        return error
    if response.is_success and (frame := decode(response.content)):
        return frame
    if 400 <= response.status_code < 500:
        said = f"HTTP {response.status_code} from something on the way to the server"
        return {"type": "error", "code": f"http_{response.status_code}", "message": said}
    return {"type": "lost"}


def _place(frame: dict[str, Any]) -> Cursor | None:
    try:
        return Cursor.parse(frame["cursor"])
    except (KeyError, TypeError, InvalidCursor):
        return None
