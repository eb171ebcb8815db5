"""Everything that depends on the internals of Daphne, Twisted and autobahn.

Daphne's ``send()`` takes 40 microseconds per client, never waits, and its buffer has no bound.
So bytes that clients share are written directly to the socket while the transport's buffer is
empty, which takes 7 microseconds (``docs/performance.md``); the buffer's bytes count as unsent.
Each of the internals is checked before it is used. Where one is missing, and for each write whose
preconditions do not hold, the writer goes through ``send()``, the portable path.

A frame always stays in one piece: it is written whole, or its rest goes into the transport's
buffer, and nothing is written past a buffer that is not empty. So no frame, whether ours or
Daphne's (a ping or a close), ends up inside another one.
"""

# long: whoever updates Daphne, Twisted or autobahn has to check this file and no other.

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from realtime.writers.asgi import CLOSE_SECONDS, AsgiWriter, Framing, Send, frames_of

if TYPE_CHECKING:
    from realtime.conf import Limits
    from realtime.protocol.frames import CloseCode
    from realtime.writers.flusher import Flusher, WritePath

__all__ = [
    "DaphneWriter",
    "FrameGuard",
    "count_answer",
    "is_secure",
    "protocol_of",
    "root_paths_of",
    "send_empty",
    "writer_for",
]

logger = logging.getLogger("realtime")

UNSHARED_FRAMES = 16  # encoded in one flush of a client whose bytes are its own: about 0.2 ms
WRAPPER_DEPTH = 4  # nested wrappers in which Daphne's send() is searched for

FRAMES_PER_COMMAND = 8  # a client's library can split a message, send pings and answer them
QUEUED_MESSAGES = 100  # that wait for the application before nothing more is read
UNSENT_PONG_BYTES = 64 * 1024  # unsent bytes above which a client receives no pongs
MESSAGE_SECONDS = 30.0  # from the first frame of a message to its last byte

SocketSend: TypeAlias = Callable[[bytes], int]


def protocol_of(send: Send) -> Any | None:
    """Return Daphne's protocol object behind an ASGI ``send``; None on any other server.

    ``daphne.server.Server.create_application`` makes ``send`` as
    ``partial(self.handle_reply, protocol)``.
    """
    if not isinstance(send, partial) or len(send.args) != 1 or send.keywords:
        return None
    protocol = send.args[0]
    if not type(protocol).__module__.startswith("daphne."):
        return None
    return protocol


def _wrapped_protocol(send: Any, depth: int) -> Any | None:
    """Return Daphne's protocol behind a ``send`` that a middleware has wrapped; None if not found.

    Searches closures, the arguments of ``partial()``, attributes of a bound method's object, and
    ``__wrapped__``.
    """
    if (protocol := protocol_of(send)) is not None or depth == 0:
        return protocol
    inside: list[Any] = [getattr(send, "__wrapped__", None)]
    if isinstance(send, partial):
        inside += [send.func, *send.args, *send.keywords.values()]
    for cell in getattr(send, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            inside.append(cell.cell_contents)
    inside += vars(getattr(send, "__self__", None)).values() if _is_bound(send) else []
    for each in inside:
        if callable(each) and (found := _wrapped_protocol(each, depth - 1)) is not None:
            return found
    return None


def _is_bound(send: Any) -> bool:
    return hasattr(getattr(send, "__self__", None), "__dict__")


@cache
def _warn_wrapped(kind: str) -> None:
    """Log, once, why events take the portable path although the server is Daphne."""
    logger.warning(
        "a middleware outside of with_realtime() wraps Daphne's send() (in a %s), so events go "
        "through both, which takes five times as long; wrap the inner application instead: "
        "with_realtime(middleware(application))",
        kind,
    )


def is_secure(send: Send) -> bool | None:
    """Tell whether a Daphne connection uses TLS; None where that cannot be known.

    Daphne's WebSocket scope has no scheme.
    """
    transport = getattr(protocol_of(send), "transport", None)
    if transport is None:
        return None
    return hasattr(transport, "getPeerCertificate")


def root_paths_of(send: Send) -> tuple[str, str]:
    """Return the root path with which Daphne was started, and that of the request.

    They differ if the request has the header ``Daphne-Root-Path``. On another server, both are "".
    """
    protocol = protocol_of(send)
    paths = [
        getattr(each, "root_path", "") for each in (getattr(protocol, "server", None), protocol)
    ]
    started, requested = (path if isinstance(path, str) else "" for path in paths)
    return started, requested


def send_empty(send: Send, *, binary: bool) -> bool:
    """Send an empty WebSocket message on Daphne, whose own ``send`` drops it.

    ``daphne.ws_protocol.WebSocketProtocol.handle_reply`` treats an empty text like no text.

    Returns:
        False, and nothing is sent, on other servers: their ``send`` sends it.
    """
    protocol = protocol_of(send)
    if protocol is None or not hasattr(protocol, "sendMessage"):
        return False
    if protocol.state == protocol.STATE_OPEN:
        protocol.sendMessage(b"", binary)
    return True


def writer_for(send: Send, framing: Framing | None = None) -> AsgiWriter:
    """Return the fastest writer that the connection's server allows.

    For a WebSocket, call it after the accept.
    """
    protocol = protocol_of(send)
    if protocol is None:
        protocol = _wrapped_protocol(send, WRAPPER_DEPTH)
        if protocol is None:
            return AsgiWriter(send, framing)
        _warn_wrapped(type(send).__name__)
        return CountingWriter(send, protocol, framing)
    kind = WebSocketWriter if hasattr(protocol, "sendMessage") else StreamWriter
    return kind(send, protocol, framing)


def _buffer_size(transport: Any) -> int:
    """Return the size of a transport's buffers; with TLS, also of the socket's below it."""
    size = 0
    while transport is not None:
        size += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
        size += getattr(transport, "_tempDataLen", 0)
        # A TLS transport wraps the socket's transport.
        transport = getattr(transport, "transport", None)
    return size


def _abort_unread(transport: Any) -> None:
    """Cut a connection whose client does not take what is in the buffer, which frees the buffer."""
    if not _buffer_size(transport):
        return
    while transport is not None and not hasattr(transport, "abortConnection"):
        transport = getattr(transport, "transport", None)  # a channel of HTTP wraps its transport
    if transport is not None:
        transport.abortConnection()


class UnsentAnswer:
    """What Daphne's buffer has of an HTTP answer, which was sent as a whole."""

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnsentAnswer) and other._transport is self._transport

    def __hash__(self) -> int:
        return hash(self._transport)

    @property
    def unsent(self) -> int:
        """Bytes in the buffer, also of the connection's next answers."""
        return _buffer_size(self._transport)

    @property
    def drained(self) -> int:
        """A number that grows when the client takes bytes."""
        return -self.unsent

    def request_close(self, code: CloseCode) -> None:
        """Cut the connection: an answer that has begun cannot say why it ends."""
        _abort_unread(self._transport)


def count_answer(send: Send, flusher: Flusher) -> None:
    """Have the bytes counted that an HTTP answer has left in Daphne's buffer.

    Other servers wait in ``send()`` until the client has taken most of them.
    """
    transport = getattr(_wrapped_protocol(send, WRAPPER_DEPTH), "transport", None)
    if _buffer_size(transport):
        flusher.behind.add(UnsentAnswer(transport))


class DaphneWriter(AsgiWriter):
    """Writes to the socket past Daphne where that is safe, and counts what Daphne buffers.

    It is safe while the transport's buffers are empty and the protocol may send.
    Everything that changes this, even a ping, a close frame or ``loseConnection()``, begins with
    ``transport.startWriting()`` and ends with ``stopWriting()``. So the writer hooks these two
    methods and checks only then: a check at each write would take a seventh of the write's time.

    Bytes that the writer writes itself are missing from Daphne's access log.
    """

    __slots__ = ("_protocol", "_safe_send", "_socket_send", "_transport")

    #: Attributes of the protocol that ``_may_send()`` reads; none for a writer that only counts.
    required: tuple[str, ...] = ()

    def __init__(self, send: Send, protocol: Any, framing: Framing | None = None) -> None:
        super().__init__(send, framing)
        self._protocol = protocol
        self._transport: Any = None  # None where nothing is written past Daphne
        self._socket_send: SocketSend | None = None
        self._safe_send: SocketSend | None = None  # _socket_send while it is safe, else None
        if not self.required:
            return
        transport: Any = getattr(protocol, "transport", None)
        missing = tuple(name for name in self.required if not hasattr(protocol, name))
        if missing:
            _warn_unsupported(f"{type(protocol).__name__} has no {', '.join(missing)}")
        elif not hasattr(transport, "socket"):
            pass  # Twisted deletes it when the connection is lost, here before it was accepted
        elif _is_supported() and _is_plain(transport) and self._is_shared():
            self._transport = transport
            # The socket object, not its number, which the socket of another client may get later.
            self._socket_send = transport.socket.send
            self._hook_transport()
            self._check_transport()

    def _is_shared(self) -> bool:
        """Tell whether a frame has the same bytes for all clients of this kind."""
        raise NotImplementedError("of a subclass")

    def _may_send(self) -> bool:
        """Tell whether the protocol's state allows a frame to come next."""
        raise NotImplementedError("of a subclass")

    def _hook_transport(self) -> None:
        """Replace the transport's methods, to notice when others write to it."""
        self._transport.startWriting = self._on_start_writing
        self._transport.stopWriting = self._on_stop_writing

    def _unhook_transport(self) -> None:
        mine = {"startWriting": self._on_start_writing, "stopWriting": self._on_stop_writing}
        current = vars(self._transport)
        for name, hook in mine.items():
            if current.get(name) == hook:  # else it is the hook of the connection's next stream
                del current[name]

    def _on_start_writing(self) -> None:
        self._safe_send = self.send_direct = None
        self._note_unsent()
        self.refresh_available()  # the transport's bytes are more than frames' texts
        type(self._transport).startWriting(self._transport)

    def _on_stop_writing(self) -> None:
        type(self._transport).stopWriting(self._transport)
        try:
            self._check_transport()
        except Exception as error:  # Twisted would end the connection because of it
            self._safe_send = self.send_direct = None
            _warn_unsupported(f"{type(error).__name__}: {error}")

    def _check_transport(self) -> None:
        transport = self._transport
        is_empty = not transport.dataBuffer and not transport._tempDataBuffer
        self._safe_send = self._socket_send if is_empty and self._is_open() else None
        if not self.queue and self._task is None and self.wire_format is not None:
            self.send_direct = self._safe_send

    def _is_open(self) -> bool:
        transport = self._transport
        is_ending = transport.disconnecting or transport.disconnected or transport._aborting
        return not is_ending and self._may_send()

    def _buffered(self) -> int:
        """Return the size of the transport's buffers."""
        return _buffer_size(getattr(self._protocol, "transport", None))

    def flush(self) -> WritePath | None:
        """Write the queue by the fastest safe path; return it, None if nothing was written."""
        send, queue = self._safe_send, self.queue
        if not queue or self._task is not None:
            return None
        if send is None and (self._transport is None or not self._is_open()):
            return super().flush()
        flusher, wire_format = self._flusher, self.wire_format
        assert flusher is not None
        if wire_format is None:
            frames = list(frames_of(queue))
            data = self._framing.encode(frames[:UNSHARED_FRAMES])
            queue[:] = frames[UNSHARED_FRAMES:]
            if queue:
                flusher.requeue(self)
        else:
            is_one = len(queue) == 1
            data = (
                queue[0].wire(wire_format)
                if is_one
                else b"".join([piece.wire(wire_format) for piece in queue])
            )
            queue.clear()
        self._dequeued += len(data)
        self.last_flush = flusher.now
        if send is None:
            # Append to the buffer. Only the transport empties it, so the order is kept.
            self._transport.write(data)
            return "buffered"
        try:
            sent = send(data)
        except OSError:
            sent = 0  # the socket is full or broken; the transport finds out which
        if sent != len(data):
            self._transport.write(data[sent:])
        elif wire_format is not None and not queue:
            self.send_direct = send
        return "direct"

    def buffer_rest(self, rest: bytes) -> None:
        """Put the bytes that the socket did not take into the transport's buffer."""
        self._dequeued += len(rest)
        self._transport.write(rest)

    async def close(self, code: int) -> None:
        """Send what is queued, then close; cut the connection if the client does not take it."""
        await super().close(code)
        if self._buffered():
            loop, transport = asyncio.get_running_loop(), self._protocol.transport
            loop.call_later(CLOSE_SECONDS, _abort_unread, transport)

    def abort(self) -> None:
        """Drop the queue and write nothing more."""
        super().abort()
        self._safe_send = None
        if self._transport is not None:
            self._unhook_transport()
            self._transport = None


class FrameGuard:
    """Limits the frames that a client can send on Daphne, before they cost anything.

    Daphne passes whole messages on, so an application sees neither control frames nor the parts of
    a message: without the guard, pings that are never read fill the memory, and empty frames keep
    a core busy. The guard sees each frame when autobahn has read its header. It aborts the
    connection

    - if the client sends more frames than ``FRAMES_PER_COMMAND`` times its commands, of any kind;
    - if a message is larger than twice ``frame_bytes``, which leaves room for an answer to one that
      is a little too large; autobahn compares that with the header, before it reads the message;
    - if a message is not complete after ``MESSAGE_SECONDS``.

    A ping is not answered while more than ``UNSENT_PONG_BYTES`` are unsent, and nothing is read
    while ``QUEUED_MESSAGES`` wait for the application.

    Until ``begin()`` nothing is read from the socket: autobahn keeps whatever a client sends before
    the accept, without a limit, and then takes minutes to parse it.
    """

    __slots__ = ("_began", "_due", "_is_paused", "_limits", "_protocol", "_timer", "_writer")

    #: Attributes of the protocol before the accept.
    required = (
        "STATE_CLOSED",
        "application_queue",
        "data",
        "dropConnection",
        "maxMessagePayloadSize",
        "muted",
        "onFrameBegin",
        "onPing",
        "state",
    )

    def __init__(self, send: Send, limits: Limits) -> None:
        """Guard the connection behind an ASGI ``send``; do nothing on another server.

        Args:
            send: of a WebSocket that is not accepted yet.
            limits: ``frame_bytes``, ``commands_per_second`` and ``commands_burst`` are used.
        """
        protocol = _wrapped_protocol(send, WRAPPER_DEPTH)
        self._protocol: Any = None
        self._timer: asyncio.TimerHandle | None = None
        if protocol is None or not _is_guardable(type(protocol), protocol):
            return
        self._protocol = protocol
        self._limits = limits
        self._writer: AsgiWriter | None = None
        self._due = 0.0  # when the frames so far would have been allowed one by one
        self._began = 0.0  # when the last message began
        largest, ours = protocol.maxMessagePayloadSize, 2 * limits.frame_bytes
        protocol.maxMessagePayloadSize = min(largest, ours) if largest else ours
        protocol.onFrameBegin = self._on_frame
        protocol.onPing = self._on_ping
        self._is_paused = True
        protocol.transport.pauseProducing()

    def begin(self, writer: AsgiWriter) -> None:
        """Read from the socket; call it after the accept.

        Args:
            writer: its ``unsent`` is what the client has not taken yet.
        """
        if self._protocol is None:  # another server, or aborted by what came with the handshake
            return
        self._writer = writer
        # autobahn keeps the handshake's texts, which take more memory than the guard.
        self._protocol.http_request_data, self._protocol.http_response_data = b"", ""
        self._resume()

    def read_on(self) -> None:
        """Read from the socket if few messages wait; call it before each ``receive()``."""
        protocol = self._protocol
        if protocol is None or not self._is_paused:
            return
        if protocol.application_queue.qsize() < QUEUED_MESSAGES // 2:
            self._resume()

    def _resume(self) -> None:
        self._is_paused = False
        self._protocol.transport.resumeProducing()

    def close(self) -> None:
        """Drop further messages, because the application has ended; idempotent.

        A client can go on sending until its connection is lost, so frames are still counted.
        """
        self._stop_timer()
        protocol = self._protocol
        if protocol is None:
            return
        protocol.muted = True  # else Daphne would queue messages that nobody receives
        self._resume()
        if protocol.state == protocol.STATE_CLOSED:
            self._unhook()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unhook(self) -> None:
        for name in ("onFrameBegin", "onPing"):
            vars(self._protocol).pop(name, None)
        self._protocol = None

    def _on_frame(self) -> None:
        protocol, limits = self._protocol, self._limits
        now = monotonic()
        rate = FRAMES_PER_COMMAND * limits.commands_per_second
        self._due = max(self._due, now) + 1 / rate
        if self._due - now > FRAMES_PER_COMMAND * limits.commands_burst / rate:
            self._abort("sent too many frames")
            return
        is_new = not protocol.inside_message
        type(protocol).onFrameBegin(protocol)
        frame = protocol.current_frame
        if not is_new or frame is None or frame.opcode > 7:
            return
        if not self._is_paused and protocol.application_queue.qsize() >= QUEUED_MESSAGES:
            self._is_paused = True
            protocol.transport.pauseProducing()
        self._began = now
        is_whole = frame.fin and len(protocol.data) >= frame.length
        if self._timer is None and not is_whole:
            self._check_message()

    def _check_message(self) -> None:
        """Abort if the message is incomplete for too long; look again when it would be."""
        self._timer = None
        if self._protocol is None or not self._protocol.inside_message:
            return
        rest = self._began + MESSAGE_SECONDS - monotonic()
        if rest <= 0:
            self._abort(f"did not complete a message within {MESSAGE_SECONDS:.0f} s")
        else:
            self._timer = asyncio.get_running_loop().call_later(rest, self._check_message)

    def _on_ping(self, payload: bytes) -> None:
        if self._writer is None or self._writer.unsent <= UNSENT_PONG_BYTES:
            type(self._protocol).onPing(self._protocol, payload)

    def _abort(self, reason: str) -> None:
        protocol = self._protocol
        logger.info("a client was disconnected because it %s", reason)
        self._stop_timer()
        self._unhook()
        protocol.dropConnection(abort=True)


def _is_guardable(kind: Any, protocol: Any) -> bool:
    """Tell whether a protocol has what the guard needs, and calls it; log once where it has not."""
    if missing := [name for name in FrameGuard.required if not hasattr(protocol, name)]:
        _warn_unguarded(f"has no {', '.join(missing)}")
        return False
    return _calls_hooks(kind)


@cache
def _calls_hooks(kind: Any) -> bool:
    """Tell whether this autobahn calls the guard's methods for each frame, and cuts by the header.

    Tries a protocol without a connection, once per process.
    """
    try:
        if _hooks_work(kind):
            return True
        reason = "handles frames elsewhere"
    except Exception as error:
        reason = f"raises {type(error).__name__}: {error}"
    _warn_unguarded(reason)
    return False


def _hooks_work(kind: Any) -> bool:
    from autobahn.twisted import websocket
    from twisted.internet import testing

    class Probe(websocket.WebSocketServerProtocol):
        """Parses frames as Daphne's protocol does, and passes nothing on."""

        def dropConnection(self, abort: bool = False) -> None:
            self.state = self.STATE_CLOSED

    for name in ("onFrameBegin", "processData"):
        if getattr(kind, name, None) is not getattr(websocket.WebSocketServerProtocol, name):
            return False  # Daphne has its own
    untyped: Any = websocket.WebSocketServerFactory
    transport: Any = testing.StringTransport
    probe: Any = Probe()
    probe.factory = untyped()
    probe.openHandshakeTimeout = 0  # no timer
    probe.makeConnection(transport())
    probe.state, probe.inside_message, probe.current_frame = probe.STATE_OPEN, False, None
    probe.maxMessagePayloadSize, probe.websocket_version = 10, 13
    seen: list[object] = []

    def on_frame() -> None:
        type(probe).onFrameBegin(probe)
        frame = probe.current_frame
        is_whole = len(probe.data) >= frame.length
        seen.append((frame.opcode, frame.fin, is_whole, probe.inside_message))

    probe.onFrameBegin, probe.onPing = on_frame, seen.append
    probe.dataReceived(b"\x89\x81\0\0\0\0p" + b"\x01\x80\0\0\0\0")
    probe.dataReceived(b"\x00\x81\0\0\0\0x" + b"\x80\x8a\0\0\0\0")
    return probe.wasMaxMessagePayloadSizeExceeded and seen == [
        (9, True, True, False),
        b"p",
        (1, False, True, True),
        (0, False, True, True),
        (0, True, False, True),
    ]


@cache
def _warn_unguarded(reason: str) -> None:
    """Log, once, that frames are not limited on this Daphne or autobahn."""
    logger.warning(
        "the limits of frames do not support this version of Daphne or autobahn, which %s; "
        "upgrade this package, or let the proxy in front limit its clients",
        reason,
    )


class CountingWriter(DaphneWriter):
    """Writes through a middleware, and counts what Daphne buffers behind it."""

    __slots__ = ()


class WebSocketWriter(DaphneWriter):
    """Writes frames of a WebSocket."""

    __slots__ = ()

    required = ("STATE_OPEN", "state", "send_queue", "_perMessageCompress")

    def _is_shared(self) -> bool:
        """Tell whether no compressor makes the bytes of each client different."""
        return self._protocol._perMessageCompress is None

    def _may_send(self) -> bool:
        """Tell whether no close frame was sent, and no frame is being sent in parts."""
        protocol = self._protocol
        return protocol.state == protocol.STATE_OPEN and not protocol.send_queue


class StreamWriter(DaphneWriter):
    """Writes chunks of an event stream."""

    __slots__ = ()

    required = ("chunked", "finished", "method")

    def _is_shared(self) -> bool:
        """Return True: Daphne does not compress responses."""
        return True

    def _may_send(self) -> bool:
        """Tell whether the response head is written and announces a chunked body."""
        request = self._protocol
        return (
            not request.finished
            and request.chunked == 1  # set with the head, and only for HTTP/1.1
            and getattr(request, "channel", None) is not None  # Twisted deletes it at the end
            and request.method != b"HEAD"
        )


def _is_plain(transport: Any) -> bool:
    """Tell whether a transport is a TCP or Unix socket without TLS."""
    from twisted.internet import tcp

    return isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)


@cache
def _is_supported() -> bool:
    """Tell whether Twisted's transports keep their bytes where this module looks for them.

    Tries a transport on a pair of sockets, once per process: written bytes must be in its buffers
    until they are sent, and in none of them afterwards.
    """
    try:
        if _transport_works():
            return True
        reason = "its transports keep their buffers elsewhere"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    _warn_unsupported(reason)
    return False


@cache
def _warn_unsupported(reason: str) -> None:
    """Log, once, that events take the portable path on this Daphne or Twisted, and why."""
    logger.warning(
        "direct writes do not support this version of Daphne or Twisted, so events go through "
        "Daphne's send(), which takes about five times as long; upgrade this package, or report "
        "the versions: %s",
        reason,
    )


class _NoReactor:
    """A reactor that ignores the calls of a transport."""

    def addWriter(self, transport: Any) -> None:
        pass

    removeWriter = addReader = removeReader = addWriter


def _transport_works() -> bool:
    from twisted.internet import tcp

    ours, theirs = socket.socketpair()
    try:
        connection: Any = tcp.Connection
        transport = connection(ours, None, _NoReactor())
        calls: list[str] = []
        transport.startWriting = partial(calls.append, "start")
        transport.stopWriting = partial(calls.append, "stop")
        transport.connected = 1
        empty = not transport.dataBuffer and not transport._tempDataBuffer
        open_ = not (transport.disconnecting or transport.disconnected or transport._aborting)
        transport.write(b"ab")
        kept = bool(transport._tempDataBuffer) and transport._tempDataLen == 2
        transport.doWrite()
        sent = theirs.recv(3) == b"ab" and calls == ["start", "stop"]
        empty_again = not transport.dataBuffer and not transport._tempDataBuffer
        # What the kernel does not take has to stay in the buffer.
        transport.write(large := b"x" * 8 * 1024 * 1024)
        transport.doWrite()
        rest_kept = 0 < len(transport.dataBuffer) - transport.offset < len(large)
        transport.loseConnection()
        losing = bool(transport.disconnecting) and calls == ["start", "stop", "start", "start"]
        whole = transport.socket is ours
        return all((empty, open_, kept, sent, empty_again, rest_kept, losing, whole))
    finally:
        ours.close()
        theirs.close()
