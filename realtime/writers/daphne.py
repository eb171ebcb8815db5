"""Everything that depends on the inside of Daphne, Twisted and autobahn.

Daphne's ``send()`` takes 40 microseconds a client, never waits, and its buffer has no bound.
So bytes that are the same for all clients are written to the socket itself where nothing waits
before them, which takes 7 (``docs/performance.md``); how much is unsent is read from the transport.
Each piece of the inside is looked for before it is used; where one is missing, and for each write
whose preconditions do not hold, the portable way is taken.

A frame is one piece of bytes, written whole or with its rest in the transport's buffer, and nothing
is written past a buffer that is not empty: so no frame of ours, and none of Daphne's (pings,
closes), comes to lie inside another.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any, TypeAlias

from realtime.writers.asgi import AsgiWriter, Form, Send, frames_of

__all__ = ["DaphneWriter", "is_secure", "protocol_of", "send_empty", "writer_for"]

logger = logging.getLogger("realtime")

OWN_FRAMES = 16  # in one flush of a client whose bytes are its own: about 0.2 ms
DEPTH = 4  # of wrappers around Daphne's send() that are looked through

SendNow: TypeAlias = Callable[[bytes], int]


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
    """Return Daphne's protocol behind a ``send`` that middleware has wrapped, if it can be found.

    Looks into what functions close over, what is bound by ``partial()``, and ``__wrapped__``.
    """
    if (protocol := protocol_of(send)) is not None or depth == 0:
        return protocol
    inside: list[Any] = [getattr(send, "__wrapped__", None)]
    if isinstance(send, partial):
        inside += [send.func, *send.args, *send.keywords.values()]
    for cell in getattr(send, "__closure__", None) or ():
        with suppress(ValueError):  # it is empty
            inside.append(cell.cell_contents)
    inside += vars(getattr(send, "__self__", None)).values() if _is_bound(send) else []
    for each in inside:
        if callable(each) and (found := _wrapped_protocol(each, depth - 1)) is not None:
            return found
    return None


def _is_bound(send: Any) -> bool:
    return hasattr(getattr(send, "__self__", None), "__dict__")


@cache
def _say_wrapped(kind: str) -> None:
    """Log, once, why the portable way is taken although Daphne serves."""
    logger.warning(
        "a middleware outside of with_realtime() wraps Daphne's send() (in a %s), so that events "
        "go through both, which takes five times as long; put it around the inner application",
        kind,
    )


def is_secure(send: Send) -> bool | None:
    """Tell whether a Daphne connection speaks TLS; None where that cannot be known.

    Daphne's WebSocket scope has no scheme.
    """
    transport = getattr(protocol_of(send), "transport", None)
    if transport is None:
        return None
    return hasattr(transport, "getPeerCertificate")


def send_empty(send: Send, *, binary: bool) -> bool:
    """Send an empty WebSocket message, which Daphne drops; False on other servers, which send it.

    ``daphne.ws_protocol.WebSocketProtocol.handle_reply`` takes an empty text for no text.
    """
    protocol = protocol_of(send)
    if protocol is None or not hasattr(protocol, "sendMessage"):
        return False
    if protocol.state == protocol.STATE_OPEN:
        protocol.sendMessage(b"", binary)
    return True


def writer_for(send: Send, form: Form | None = None) -> AsgiWriter:
    """Return the best writer for a connection, by what its server can do.

    For a WebSocket after it was accepted.
    """
    protocol = protocol_of(send)
    if protocol is None:
        protocol = _wrapped_protocol(send, DEPTH)
        if protocol is None:
            return AsgiWriter(send, form)
        _say_wrapped(type(send).__name__)
        return CountingWriter(send, protocol, form)
    kind = WebSocketWriter if hasattr(protocol, "sendMessage") else StreamWriter
    return kind(send, protocol, form)


class DaphneWriter(AsgiWriter):
    """A writer that goes past Daphne where that is safe, and knows what is unsent where it is not.

    It is safe while nothing is in the transport's buffers and the protocol may send.
    Whatever changes that begins with ``transport.startWriting()`` and ends with ``stopWriting()``,
    also a ping, a close frame and ``loseConnection()``, so that they are looked at then, and not at
    each write, where it would take a seventh of the time.

    What it writes itself is not in Daphne's own statistics (the size in its access log).
    """

    __slots__ = ("_direct", "_protocol", "_send_now", "_transport")

    def __init__(self, send: Send, protocol: Any, form: Form | None = None) -> None:
        super().__init__(send, form)
        self._protocol = protocol
        self._transport: Any = None
        self._send_now: SendNow | None = None
        self._direct: SendNow | None = None  # the same, while it is safe
        if not self.asks:
            return
        transport: Any = getattr(protocol, "transport", None)
        lacks = tuple(name for name in self.asks if not hasattr(protocol, name))
        if lacks:
            _say_not_understood(f"{type(protocol).__name__} has no {', '.join(lacks)}")
        elif _is_understood() and _is_plain(transport) and self._is_shared():
            self._transport = transport
            # The socket object and never its number, which another client's socket may get.
            self._send_now = transport.socket.send
            self._listen()
            self._look_at_transport()

    #: what of the protocol ``_may_send()`` looks at
    asks: tuple[str, ...] = ()

    def _is_shared(self) -> bool:
        """Tell whether the bytes of a frame are the same for all such clients."""
        raise NotImplementedError("of a subclass")

    def _may_send(self) -> bool:
        """Tell whether a frame may come next, as far as the protocol is concerned."""
        raise NotImplementedError("of a subclass")

    def _listen(self) -> None:
        """Hear of what is written by others."""
        self._transport.startWriting = self._writing_starts
        self._transport.stopWriting = self._writing_stops

    def _listen_no_more(self) -> None:
        mine = {"startWriting": self._writing_starts, "stopWriting": self._writing_stops}
        there = vars(self._transport)
        for name, heard in mine.items():
            if there.get(name) == heard:  # and not that of the next stream of the connection
                del there[name]

    def _writing_starts(self) -> None:
        self._direct = self.ready = None
        self.look()  # what waits on the wire, ids among it, is more than the frames' texts
        type(self._transport).startWriting(self._transport)

    def _writing_stops(self) -> None:
        type(self._transport).stopWriting(self._transport)
        try:
            self._look_at_transport()
        except Exception as error:  # which Twisted would take for the end of the connection
            self._direct = self.ready = None
            _say_not_understood(f"{type(error).__name__}: {error}")

    def _look_at_transport(self) -> None:
        transport = self._transport
        is_empty = not transport.dataBuffer and not transport._tempDataBuffer
        self._direct = self._send_now if is_empty and self._is_open() else None
        if not self.queue and self._task is None and self.shared is not None:
            self.ready = self._direct

    def _is_open(self) -> bool:
        transport = self._transport
        is_ending = transport.disconnecting or transport.disconnected or transport._aborting
        return not is_ending and self._may_send()

    def _buffered(self) -> int:
        """Return the bytes in the transport's buffers; with TLS, those of the socket below too."""
        size = 0
        transport = getattr(self._protocol, "transport", None)
        while transport is not None:
            size += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
            size += getattr(transport, "_tempDataLen", 0)
            # A TLS transport wraps the socket's one.
            transport = getattr(transport, "transport", None)
        return size

    def flush(self) -> None:
        """Let what is queued leave, by the best way that is safe now."""
        direct, queue = self._direct, self.queue
        if not queue or self._task is not None:
            return
        if direct is None and (self._transport is None or not self._is_open()):
            super().flush()
            return
        flusher, shared = self._flusher, self.shared
        assert flusher is not None
        if shared is None:
            frames = list(frames_of(queue))
            data = self._form.own(frames[:OWN_FRAMES])
            queue[:] = frames[OWN_FRAMES:]
            if queue:
                flusher.queue_again(self)
        else:
            one = len(queue) == 1
            data = queue[0].wire(shared) if one else b"".join([p.wire(shared) for p in queue])
            queue.clear()
        self._handed += len(data)
        self.last_flush = flusher.now
        if direct is None:
            # Behind what waits there, in order: bytes are taken from it by the transport alone.
            flusher.buffered += 1
            self._transport.write(data)
            return
        flusher.direct += 1
        try:
            sent = direct(data)
        except OSError:
            sent = 0  # it is full, which the transport waits for, or broken, which it finds as well
        if sent != len(data):
            self._transport.write(data[sent:])
        elif shared is not None and not queue:
            self.ready = direct

    def keep(self, rest: bytes) -> None:
        """Put what the socket did not take into the transport's buffer."""
        self._handed += len(rest)
        self._transport.write(rest)

    def abandon(self) -> None:
        """Drop what is queued and write nothing more."""
        super().abandon()
        self._direct = None
        if self._transport is not None:
            self._listen_no_more()
            self._transport = None


class CountingWriter(DaphneWriter):
    """Sends what a middleware wants to see, and knows what Daphne keeps of it."""

    __slots__ = ()


class WebSocketWriter(DaphneWriter):
    """Writes frames of a WebSocket."""

    __slots__ = ()

    asks = ("STATE_OPEN", "state", "send_queue", "_perMessageCompress")

    def _is_shared(self) -> bool:
        """Tell whether no compressor makes each client's bytes its own."""
        return self._protocol._perMessageCompress is None

    def _may_send(self) -> bool:
        """Tell whether no close frame was sent, and nothing is to be sent piece by piece."""
        protocol = self._protocol
        return protocol.state == protocol.STATE_OPEN and not protocol.send_queue


class StreamWriter(DaphneWriter):
    """Writes chunks of an event stream."""

    __slots__ = ()

    asks = ("chunked", "finished", "method")

    def _is_shared(self) -> bool:
        """Tell that a compressor is nothing that Daphne has."""
        return True

    def _may_send(self) -> bool:
        """Tell whether chunks may come next: the head is written, and names their coding."""
        request = self._protocol
        return (
            not request.finished
            and request.chunked == 1  # set with the head, by HTTP/1.1 only
            and getattr(request, "channel", None) is not None  # it is deleted at the end
            and request.method != b"HEAD"
        )


def _is_plain(transport: Any) -> bool:
    """Tell whether a transport is a socket, of TCP or Unix, without TLS."""
    from twisted.internet import tcp

    return isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)


@cache
def _is_understood() -> bool:
    """Tell whether Twisted's transports keep their bytes where this module looks for them.

    A transport is tried on a pair of sockets, once a process: what is written has to be seen in its
    buffers until it is sent, and in none of them afterwards.
    """
    try:
        if _try_transport():
            return True
        reason = "its buffers are not where they were"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    _say_not_understood(reason)
    return False


@cache
def _say_not_understood(reason: str) -> None:
    """Log, once, that the portable way is taken by all such connections, and why."""
    logger.warning(
        "this version of Daphne or Twisted is not understood, so that events go to clients through "
        "its send(), which takes about five times as long: %s",
        reason,
    )


class _NoReactor:
    """Takes what a transport asks of its reactor, and does nothing."""

    def addWriter(self, transport: Any) -> None:
        pass

    removeWriter = addReader = removeReader = addWriter


def _try_transport() -> bool:
    from twisted.internet import tcp

    ours, theirs = socket.socketpair()
    try:
        connection: Any = tcp.Connection
        transport = connection(ours, None, _NoReactor())
        heard: list[str] = []
        transport.startWriting = partial(heard.append, "start")
        transport.stopWriting = partial(heard.append, "stop")
        transport.connected = 1
        empty = not transport.dataBuffer and not transport._tempDataBuffer
        open_ = not (transport.disconnecting or transport.disconnected or transport._aborting)
        transport.write(b"ab")
        kept = bool(transport._tempDataBuffer) and transport._tempDataLen == 2
        transport.doWrite()
        sent = theirs.recv(3) == b"ab" and heard == ["start", "stop"]
        empty_again = not transport.dataBuffer and not transport._tempDataBuffer
        # What the kernel does not take has to stay in the buffer.
        transport.write(large := b"x" * 8 * 1024 * 1024)
        transport.doWrite()
        rest_kept = 0 < len(transport.dataBuffer) - transport.offset < len(large)
        transport.loseConnection()
        losing = bool(transport.disconnecting) and heard == ["start", "stop", "start", "start"]
        whole = transport.socket is ours
        return all((empty, open_, kept, sent, empty_again, rest_kept, losing, whole))
    finally:
        ours.close()
        theirs.close()
