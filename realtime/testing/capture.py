"""Capture the events that are published in a block of code."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, overload
from unittest.mock import ANY

from asgiref.sync import sync_to_async

from realtime.broadcast import Wakeup
from realtime.exceptions import InvalidData
from realtime.protocol.events import Event, check_event_name
from realtime.protocol.names import is_internal
from realtime.publishing import encode
from realtime.testing.environment import Environment, refuse_event_loop
from realtime.topics import Topic, resolve

__all__ = ["CapturedEvents", "capture_events"]

logger = logging.getLogger("realtime")

SHOWN_LENGTH = 300  # characters of an event's data in a failure message: a few lines


class CapturedEvents(Sequence[Event]):
    """The published events, oldest first; a sequence of ``Event``.

    It contains neither events that wait for a commit nor events that were rolled back.
    Each access first runs the ``on_commit()`` hooks of the transactions that the code under test
    has committed; a ``TestCase`` alone would not run them.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._environment: Environment | None = None

    # As a context manager

    def __enter__(self) -> Self:
        if self._environment is not None:
            raise RuntimeError(
                "this capture is already active; create another one with capture_events()"
            )
        self._environment = Environment.acquire()
        self._environment.add_listener(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        environment = self._environment
        assert environment is not None
        try:
            self._run_hooks()
        except Exception:
            if error is None:
                raise
            # The test must see the exception of the code under test, so only log the hook's.
            logger.exception("an on_commit() hook failed")
        finally:
            self._environment = None
            environment.remove_listener(self)
            environment.release()

    async def __aenter__(self) -> Self:
        return await sync_to_async(self.__enter__)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await sync_to_async(self.__exit__)(kind, error, traceback)

    def receive(self, wakeup: Wakeup) -> None:
        """Record published events, but not the joins and leaves of members, which are internal."""
        if not is_internal(wakeup.topic):
            self._events.extend(wakeup.events)

    def _run_hooks(self) -> None:
        environment = self._environment
        if environment is not None and environment.commits.has_waiting_hooks():
            refuse_event_loop("async with, and await events.asettle() before each access")
            environment.commits.run_hooks()

    async def asettle(self) -> None:
        """Run the hooks of committed transactions; a coroutine awaits this before each access.

        The end of ``async with capture_events()`` runs the hooks, too.
        """
        await sync_to_async(self._run_hooks)()

    # As a sequence

    def __len__(self) -> int:
        self._run_hooks()
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        self._run_hooks()
        return self._events[index]

    def __repr__(self) -> str:
        return f"<CapturedEvents: {', '.join(map(_line, self._events)) or 'nothing'}>"

    def clear(self) -> None:
        """Discard the events that were captured so far."""
        self._run_hooks()
        self._events.clear()

    # Assertions

    def of(self, topic: Topic | str | None = None, name: str | None = None) -> list[Event]:
        """Return the events with this topic, with this name, or with both.

        Raises:
            UnknownTopic, InvalidEventName: no such event can exist; probably a typo.
        """
        topic_name = None if topic is None else str(resolve(str(topic)))
        if name is not None:
            check_event_name(name)
        return [
            event
            for event in self
            if topic_name in (None, event.topic) and name in (None, event.name)
        ]

    def assert_published(
        self,
        topic: Topic | str,
        name: str,
        data: Any = ANY,
        *,
        count: int | None = None,
    ) -> Event:
        """Assert that an event was published, and return the first that matches.

        Args:
            topic: the event's topic.
            name: the event's name.
            data: the event's data, compared in the form that clients receive; any data by default.
            count: the exact number of such events; None for at least one.

        Raises:
            AssertionError: there is no such event, or the number differs; the message lists what
                was published.
            UnknownTopic, InvalidEventName: no such event can exist; probably a typo.
        """
        found = self._matching(topic, name, data)
        if not found or (count is not None and len(found) != count):
            expected = "" if data is ANY else f" with {_shown(data)}"
            times = "" if count is None else f" {count} times"
            actual = "it was not" if not found else f"it was published {len(found)} times"
            raise AssertionError(
                f"{name!r} should have been published to {topic}{expected}{times}; {actual}.\n"
                f"{self._listing()}"
            )
        return found[0]

    def assert_not_published(
        self, topic: Topic | str | None = None, name: str | None = None, data: Any = ANY
    ) -> None:
        """Assert that no event that matches the arguments was published.

        Each argument can be omitted; without arguments, nothing at all must have been published.

        Raises:
            AssertionError: such an event was published; the message lists what was published.
            UnknownTopic, InvalidEventName: no such event can exist; probably a typo.
        """
        found = self._matching(topic, name, data)
        if found:
            subject = "this" if len(found) == 1 else f"these {len(found)}"
            lines = "\n".join(f"  {_line(event)}" for event in found)
            raise AssertionError(
                f"{subject} should not have been published:\n{lines}\n{self._listing()}"
            )

    def _matching(self, topic: Topic | str | None, name: str | None, data: Any) -> list[Event]:
        return [event for event in self.of(topic, name) if _is_same(event.data, data)]

    def _listing(self) -> str:
        lines = [f"  {_line(event)}" for event in self._events]
        text = "\n".join(["Published:", *lines]) if lines else "Nothing was published."
        commits = None if self._environment is None else self._environment.commits
        if commits is not None and (waiting := commits.count_open_hooks()):
            text += f"\nHooks that wait for the commit of an open transaction: {waiting}."
        return text


def capture_events() -> CapturedEvents:
    """Return a context manager that captures the events that are published inside it.

    Inside, events are stored in memory, starting with an empty store; the project's own store and
    channel layer are not used. ``publish()`` and ``realtime.log`` work as usual.

    Transactions behave as they do outside of a test, even in a ``TestCase``: an event that is
    published inside ``atomic()`` appears with the commit, and is discarded by a rollback, even one
    to a savepoint.

    In a coroutine, use ``async with capture_events() as events``.

    Returns:
        A ``CapturedEvents``, which the ``with`` statement binds too; use it inside and after the
        block.
    """
    return CapturedEvents()


def _is_same(data: Any, expected: Any) -> bool:
    if expected is ANY:
        return True
    try:
        received = json.loads(encode(expected))  # clients receive a date as text
    except InvalidData:
        return bool(data == expected)  # expected contains an object such as ANY
    return _canonical(data) == _canonical(received)


def _canonical(data: Any) -> str:
    """Return a text to compare, in which ``True`` differs from 1, unlike in Python."""
    return json.dumps(data, sort_keys=True)


def _shown(data: Any) -> str:
    try:
        return _cut(encode(data))
    except InvalidData:
        return _cut(repr(data))


def _line(event: Event) -> str:
    return f"{event.topic} {event.name} {_cut(event.json)}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
