"""Unsent bytes are counted on Daphne even where a middleware wraps ``send()``."""

import logging
from functools import partial
from typing import Any

import pytest

from realtime.writers import daphne
from realtime.writers.asgi import AsgiWriter
from realtime.writers.daphne import CountingWriter, protocol_of, writer_for
from realtime.writers.flusher import Flusher
from tests.writers.links import Link, WebSocket


def by_closure(send: Any) -> Any:
    async def wrapped(message: Any) -> None:
        await send(message)

    return wrapped


def by_partial(send: Any) -> Any:
    async def forward(message: Any, onward: Any) -> None:
        await onward(message)

    return partial(forward, onward=send)


def by_method(send: Any) -> Any:
    class Middleware:
        def __init__(self) -> None:
            self.onward = send

        async def send(self, message: Any) -> None:
            await self.onward(message)

    return Middleware().send


@pytest.fixture
def link(flusher: Flusher) -> Any:
    link = Link(flusher)
    yield link
    link.socket.close()
    link.peer.close()


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    daphne._warn_wrapped.cache_clear()


@pytest.mark.parametrize("wrap", [by_closure, by_partial, by_method])
def test_bytes_buffered_by_daphne_are_counted_behind_a_wrapper(
    link: Any, wrap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = WebSocket(link.transport)
    inner: Any = partial(lambda p, message: p.handle_reply(message), protocol)
    assert protocol_of(inner) is protocol
    with caplog.at_level(logging.WARNING, "realtime"):
        writer = writer_for(wrap(wrap(inner)))
        writer_for(wrap(inner))
    assert isinstance(writer, CountingWriter)
    assert writer.send_direct is None, "the wrapper sees every message"
    link.transport.write(b"x" * 1_000)
    assert writer.unsent == 1_000
    (warning,) = caplog.records  # only once
    assert "wraps" in warning.message


def test_another_servers_send_is_left_alone() -> None:
    async def send(message: Any) -> None:
        pass

    assert type(writer_for(by_closure(by_method(send)))) is AsgiWriter


def test_a_wrapper_that_holds_itself_is_not_searched_forever() -> None:
    async def send(message: Any) -> None:
        await loop(message)

    loop: Any = by_closure(send)
    send.__wrapped__ = loop  # type: ignore[attr-defined]
    assert type(writer_for(loop)) is AsgiWriter
