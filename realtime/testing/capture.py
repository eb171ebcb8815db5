"""What was published while something ran."""

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

SHOWN_LENGTH = 300  # characters of an event's data in a failure: some lines of a terminal


class CapturedEvents(Sequence[Event]):
    """The events that were published, oldest first; a sequence of ``Event``.

    An event that waits for a commit is not there yet, and one that was rolled back never is.
    Before they are looked at, ``on_commit()`` hooks of transactions that the code under test has
    committed are run, which a ``TestCase`` would not do.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._environment: Environment | None = None

    # As a context manager

    def __enter__(self) -> Self:
        if self._environment is not None:
            raise RuntimeError("this capture is under way; make another with capture_events()")
        self._environment = Environment.enter()
        self._environment.listen(self)
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
            self._settle()
        except Exception:
            if error is None:
                raise
            # The code under test has raised already, which its test shall hear of.
            logger.exception("an on_commit() hook failed")
        finally:
            self._environment = None
            environment.unlisten(self)
            environment.leave()

    async def __aenter__(self) -> Self:
        return await sync_to_async(self.__enter__)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await sync_to_async(self.__exit__)(kind, error, traceback)

    def take(self, wakeup: Wakeup) -> None:
        """Note what was published, which those who come to a topic and leave it are not."""
        if not is_internal(wakeup.topic):
            self._events.extend(wakeup.events)

    def _settle(self) -> None:
        environment = self._environment
        if environment is not None and environment.commits.are_waiting():
            refuse_event_loop("await events.asettle() before you look at them, and async with")
            environment.commits.settle()

    async def asettle(self) -> None:
        """Run what waits for a commit that has happened; in a coroutine, before looking.

        The end of ``async with capture_events()`` does it too.
        """
        await sync_to_async(self._settle)()

    # As a sequence

    def __len__(self) -> int:
        self._settle()
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        self._settle()
        return self._events[index]

    def __repr__(self) -> str:
        return f"<CapturedEvents: {', '.join(map(_line, self._events)) or 'nothing'}>"

    def clear(self) -> None:
        """Forget what was published so far."""
        self._settle()
        self._events.clear()

    # Asking

    def of(self, topic: Topic | str | None = None, name: str | None = None) -> list[Event]:
        """Return the events of a topic, of a name, or of both.

        Raises:
            UnknownTopic, InvalidEventName: there can be no such event: it is a typo.
        """
        wanted = None if topic is None else str(resolve(str(topic)))
        if name is not None:
            check_event_name(name)
        return [
            event for event in self if wanted in (None, event.topic) and name in (None, event.name)
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
            topic: its topic.
            name: its name.
            data: its data, compared as clients receive it; anything if not given.
            count: how many such events there are; at least one if None.

        Raises:
            AssertionError: there are none, or not so many; the text lists what was published.
            UnknownTopic, InvalidEventName: there can be no such event: it is a typo.
        """
        found = self._matching(topic, name, data)
        if not found or (count is not None and len(found) != count):
            wanted = "" if data is ANY else f" with {_shown(data)}"
            times = "" if count is None else f" {count} times"
            got = "it was not" if not found else f"it was published {len(found)} times"
            raise AssertionError(
                f"{name!r} should have been published to {topic}{wanted}{times}; {got}.\n"
                f"{self._listing()}"
            )
        return found[0]

    def assert_not_published(
        self, topic: Topic | str | None = None, name: str | None = None, data: Any = ANY
    ) -> None:
        """Assert that nothing of a topic, of a name, with this data, or nothing at all was.

        Raises:
            AssertionError: something was; the text lists what was published.
            UnknownTopic, InvalidEventName: there can be no such event: it is a typo.
        """
        found = self._matching(topic, name, data)
        if found:
            what = "this" if len(found) == 1 else f"these {len(found)}"
            lines = "\n".join(f"  {_line(event)}" for event in found)
            raise AssertionError(
                f"{what} should not have been published:\n{lines}\n{self._listing()}"
            )

    def _matching(self, topic: Topic | str | None, name: str | None, data: Any) -> list[Event]:
        return [event for event in self.of(topic, name) if _is_same(event.data, data)]

    def _listing(self) -> str:
        lines = [f"  {_line(event)}" for event in self._events]
        text = "\n".join(["Published:", *lines]) if lines else "Nothing was published."
        commits = None if self._environment is None else self._environment.commits
        if commits is not None and (waiting := commits.count_open()):
            text += f"\nHooks that wait for the commit of an open transaction: {waiting}."
        return text


def capture_events() -> CapturedEvents:
    """Return a context manager that captures what is published inside.

    Inside, events are kept in a store in memory that begins empty; the project's own store and
    channel layer are not used.
    ``publish()`` and all that reads the log (``realtime.log``) go on as usual.
    Transactions count as outside of a test: what is published inside ``atomic()`` comes with its
    commit and goes with its rollback, also of a savepoint, and in a ``TestCase`` too.

    In a coroutine it is ``async with capture_events() as events``.

    Returns:
        ``CapturedEvents``, also as the target of ``with``; it can be looked at inside and after.
    """
    return CapturedEvents()


def _is_same(data: Any, wanted: Any) -> bool:
    if wanted is ANY:
        return True
    try:
        received = json.loads(encode(wanted))  # a date is text for clients
    except InvalidData:
        return bool(data == wanted)  # something in it compares by itself
    return _canonical(data) == _canonical(received)


def _canonical(data: Any) -> str:
    """Return text in which true is not 1, as it is not for clients."""
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
