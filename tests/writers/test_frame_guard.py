"""The guard of a WebSocket's frames, on protocols that it does not understand."""

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerProtocol
from daphne.ws_protocol import WebSocketProtocol

from realtime.conf import Limits
from realtime.writers import daphne
from realtime.writers.daphne import FrameGuard


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    yield
    daphne._calls_hooks.cache_clear()
    daphne._warn_unguarded.cache_clear()


class NewProtocol(SimpleNamespace):
    """A protocol of a Daphne that has changed."""


NewProtocol.__module__ = "daphne.ws_protocol"


async def ignore(protocol: Any, message: Any) -> None:
    raise AssertionError


def guard(protocol: Any) -> None:
    """Guard a protocol, then use and close the guard as the consumer does."""
    made = FrameGuard(partial(ignore, protocol), Limits())
    made.begin(None)  # type: ignore[arg-type]
    made.close()


def test_daphnes_protocol_calls_the_guard_for_each_frame_and_cuts_by_the_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert daphne._calls_hooks(WebSocketProtocol)
    assert caplog.records == []


def test_a_protocol_without_an_attribute_is_left_alone_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    protocol = NewProtocol(**dict.fromkeys(set(FrameGuard.required) - {"dropConnection"}))
    before = dict(vars(protocol))
    for _ in range(3):
        guard(protocol)
    assert vars(protocol) == before
    ((_, level, text),) = caplog.record_tuples
    assert level == logging.WARNING
    assert "which has no dropConnection; upgrade this package" in text


class OwnParser(WebSocketProtocol):  # type: ignore[misc]
    """A protocol of a Daphne that parses frames itself."""

    def processData(self) -> bool:
        return False


OwnParser.__module__ = "daphne.ws_protocol"


@pytest.mark.parametrize("kind", [WebSocketProtocol, OwnParser])
def test_a_protocol_that_handles_frames_elsewhere_is_left_alone_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    if kind is WebSocketProtocol:
        monkeypatch.setattr(WebSocketServerProtocol, "processData", lambda protocol: False)
    protocol = kind()
    protocol.data, protocol.maxMessagePayloadSize, protocol.state = b"", 0, 1
    protocol.application_queue = asyncio.Queue()
    for _ in range(3):
        guard(protocol)
    assert protocol.maxMessagePayloadSize == 0
    assert "onPing" not in vars(protocol)
    (text,) = [text for _, _, text in caplog.record_tuples]
    assert "which handles frames elsewhere; upgrade this package" in text


def test_an_autobahn_that_fails_on_the_trial_is_logged_with_its_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(protocol: Any) -> None:
        raise TypeError("it takes 2 arguments")

    monkeypatch.setattr(WebSocketServerProtocol, "processData", fail)
    protocol = WebSocketProtocol()
    protocol.data, protocol.maxMessagePayloadSize, protocol.state = b"", 0, 1
    protocol.application_queue = asyncio.Queue()
    guard(protocol)
    assert "which raises TypeError: it takes 2 arguments; upgrade" in caplog.text
