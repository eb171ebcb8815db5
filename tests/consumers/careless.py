"""The test project with topics whose code is slow, broken, or cannot reach its database."""

import asyncio
import builtins
import threading
from typing import Any

from django.db import OperationalError
from django.urls import register_converter

from realtime import Topic, action, register
from tests.asgi import application

__all__ = ["application"]

OPEN = threading.Event()
AWAY: set[str] = set()  # names of topics whose permissions cannot be asked


class Odd(BaseException):
    """An exception that `except Exception` does not catch."""


def error_named(name: str) -> BaseException:
    """Return an exception of a class with this name."""
    known: dict[str, type[BaseException]] = {"Odd": Odd, "CancelledError": asyncio.CancelledError}
    return (known.get(name) or getattr(builtins, name))("a fault of the project")


class CarelessTopic(Topic):
    """Everyone may follow."""

    anonymous = True

    async def can_subscribe(self, user: Any) -> bool:
        return True


@register("slow.<slug:name>")
class SlowTopic(CarelessTopic):
    """Its action waits until it is opened."""

    name: str

    @action
    def hold(self, user: Any, data: Any) -> str:
        OPEN.wait(60)
        return "held"

    @action
    async def open(self, user: Any, data: Any) -> None:
        OPEN.set()


@register("broken.<str:error>.<str:how>")
class BrokenTopic(CarelessTopic):
    """Its code raises the error that the name says."""

    error: str
    how: str

    def can_subscribe(self, user: Any) -> Any:
        if self.how == "can_subscribe":
            raise error_named(self.error)
        return self._fail() if self.how == "async_can_subscribe" else True

    async def _fail(self) -> bool:
        raise error_named(self.error)

    @action
    def fail(self, user: Any, data: Any) -> None:
        raise error_named(self.error)

    @action
    async def fail_later(self, user: Any, data: Any) -> None:
        raise error_named(self.error)


class OddValue:
    """A value that cannot be logged."""

    def __repr__(self) -> str:
        raise RuntimeError("repr() fails")


class OddConverter:
    """A path converter that raises the error that the name says, or returns an odd value."""

    regex = "[A-Za-z]+"

    def to_python(self, text: str) -> OddValue:
        if text != "value":
            raise error_named(text)
        return OddValue()

    def to_url(self, value: OddValue) -> str:
        return "value"


register_converter(OddConverter, "odd")


@register("odd.<odd:value>")
class OddTopic(CarelessTopic):
    """Its name has a value of the odd converter."""

    value: OddValue

    @action
    def fail(self, user: Any, data: Any) -> None:
        raise ValueError("a fault of the project")


@register("away.<slug:name>")
class AwayTopic(CarelessTopic):
    """Its permission cannot be asked while the database is away."""

    name: str
    client_events = {"typing"}

    def can_subscribe(self, user: Any) -> bool:
        if str(self) in AWAY:
            raise OperationalError("server closed the connection unexpectedly")
        return True

    def can_publish(self, user: Any, event: str) -> bool:
        return self.can_subscribe(user)


@register("switch.<slug:name>")
class SwitchTopic(CarelessTopic):
    """Its actions take the database of `away.<name>` away, and bring it back."""

    name: str

    @action
    async def away(self, user: Any, data: Any) -> None:
        AWAY.add(f"away.{self.name}")

    @action
    async def back(self, user: Any, data: Any) -> None:
        AWAY.discard(f"away.{self.name}")
