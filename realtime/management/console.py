"""Follow topics on a terminal: ``Console`` prints frames; ``Listener`` gets them from a hub."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import stat
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from realtime import conf
from realtime.hub import Hub
from realtime.hub.connection import Connection, Subscription
from realtime.protocol.encoders import Frame
from realtime.protocol.events import Cursor
from realtime.protocol.frames import HEARTBEAT, CloseCode, frame
from realtime.topics import Topic
from realtime.writers.asgi import AsgiWriter, Piece
from realtime.writers.flusher import Flusher

__all__ = ["Console", "Listener", "printable"]

# JSON strings can contain these characters unescaped, but some of them are commands for a terminal
# (U+009B begins a command) or reverse the direction of the line. Event data must do neither.
_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")


def printable(text: str, encoding: str | None) -> str:
    """Escape characters that a terminal interprets or the encoding lacks; JSON stays valid."""
    text = _UNSAFE.sub(_escaped, text)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        text = _NOT_ASCII.sub(_escaped, text)
    return text


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


class _Printer(AsgiWriter):
    """Writes frames to standard output.

    If the reader of a pipe stops reading, a write blocks the whole event loop; afterwards, the hub
    reads the events that it missed from the log.
    """

    accepts_bundles = False

    def __init__(self, show: Callable[[Frame], None]) -> None:
        super().__init__(_nowhere)
        self._show = show

    def attach(
        self, flusher: Flusher, limit: int, request_close: Callable[[CloseCode], None]
    ) -> None:
        """Print each frame at once, instead of using the flusher."""
        self._request_close = request_close

    def fits(self, size: int, limit: int) -> bool:
        return True

    def write(self, frame: Piece) -> None:
        assert isinstance(frame, Frame), "bundles are not accepted"
        if not self.closed:
            self._show(frame)


async def _nowhere(message: Any) -> None:
    raise AssertionError("a listener has no socket")


class Console:
    """Prints frames until Ctrl-C, until the reader of the pipe exits, or up to a number of events.

    Attributes:
        stdout: receives the frames.
        stderr: receives notices.
        as_json: whether to print frames as JSON instead of in words.
        missing: the number of events still to print; None for no limit.
        interrupted: whether Ctrl-C ended the printing.
        ended: set when the printing has ended.
    """

    def __init__(
        self, stdout: OutputWrapper, stderr: OutputWrapper, *, as_json: bool, count: int | None
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.as_json = as_json
        self.missing = count
        self.interrupted = False

    def execute(self, listening: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that calls ``begin()`` and shows frames until ``ended`` is set."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            # Not `runner.run()`: with it, the first Ctrl-C has no effect while the loop is blocked
            # by a pipe whose reader does not read.
            try:
                loop.run_until_complete(listening)
            except KeyboardInterrupt:
                self.interrupted = True
                loop.set_exception_handler(lambda *_: None)  # do not report the interrupted task

    def begin(self) -> None:
        """Prepare to print; call this on the loop."""
        self.ended = asyncio.Event()
        self._watch_reader()

    def end(self) -> None:
        """Print nothing more."""
        self.ended.set()

    # Printing

    def show(self, frame: Frame) -> None:
        """Print a frame, except heartbeats."""
        if frame.text == HEARTBEAT or self.ended.is_set():
            return
        try:
            if self.as_json:
                self._print(frame.text)
            else:
                self._print_words(json.loads(frame.text))
        except BrokenPipeError:
            self._reader_left()
            return
        if frame.is_event and self.missing is not None:
            self.missing -= 1
            if self.missing == 0:
                self.end()

    def _print(self, text: str) -> None:
        self.stdout.write(printable(text, getattr(self.stdout, "encoding", None)))
        self.stdout.flush()

    def _print_words(self, fields: dict[str, Any]) -> None:
        topic, cursor = fields["topic"], fields.get("cursor", "")
        match fields["type"]:
            case "event":
                seconds = fields.get("time")
                clock = datetime.now() if seconds is None else datetime.fromtimestamp(seconds)
                number = f"#{fields['seq']}" if "seq" in fields else "ephemeral"
                data = json.dumps(fields["data"], ensure_ascii=False)
                self._print(f"{clock:%Y-%m-%d %H:%M:%S} {topic} {number} {fields['event']} {data}")
            case "reset":
                self._print(f"{topic} was reset ({fields['reason']}); it goes on from {cursor}")
            case "subscribed" if fields.get("recovered") is False:
                self._print(f"{topic} was reset: events are missing; it goes on from {cursor}")
            case "subscribed":
                # To stderr, so that a script that reads stdout receives no such notices.
                self.stderr.write(f"Following {topic} from {cursor}", str)
                self.stderr.flush()

    # The reader of the pipe

    def _watch_reader(self) -> None:
        """Notice at once when the reader of a pipe exits, instead of at the next event."""
        try:
            descriptor = self.stdout.fileno()
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                asyncio.get_running_loop().add_reader(descriptor, self._reader_left)
        except (AttributeError, io.UnsupportedOperation, OSError, NotImplementedError):
            pass  # not a pipe, or the loop cannot watch one: the next write fails instead

    def _reader_left(self) -> None:
        try:
            descriptor = self.stdout.fileno()
        except (AttributeError, io.UnsupportedOperation):
            pass
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
            # Python flushes its buffer again at exit; redirect that to the null device.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        self.end()


class Listener(Console):
    """Follows topics of this project, with a hub of its own."""

    def __init__(
        self, stdout: OutputWrapper, stderr: OutputWrapper, *, as_json: bool, count: int | None
    ) -> None:
        super().__init__(stdout, stderr, as_json=as_json, count=count)
        self._printer = _Printer(self.show)
        self._failure: CloseCode | None = None

    def run(self, topics: Sequence[Topic], since: Cursor | float | None, last: int | None) -> None:
        """Print the topics' frames until the console ends.

        Raises:
            StoreError: a log cannot be read now.
            CommandError: the replay failed.
        """
        self.execute(self._follow(topics, since, last))
        if self._failure is not None:
            raise CommandError(f"the replay failed: {self._failure.reason}; the log says why")

    async def _follow(
        self, topics: Sequence[Topic], since: Cursor | float | None, last: int | None
    ) -> None:
        self.begin()
        hub = Hub()
        hub.start()
        connection = Connection(
            hub, None, self._printer, conf.get().limits.buffer_bytes, self._fail
        )
        try:
            for live in await asyncio.gather(*map(hub.follow, topics)):
                subscription = Subscription(connection, live)
                await subscription.start(since, last, True, self._announcer(live.name))
            await self.ended.wait()
        finally:
            connection.end()
            await hub.close()

    def _fail(self, code: CloseCode) -> None:
        self._failure = code
        self.end()

    def end(self) -> None:
        """Print nothing more."""
        self._printer.abort()
        super().end()

    def _announcer(self, topic: str) -> Callable[[Cursor, bool | None, int], None]:
        def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
            text = frame(
                "subscribed",
                topic=topic,
                cursor=str(cursor),
                recovered=recovered,
                replayed=replayed,
            )
            self._printer.write(Frame(text))

        return announce
