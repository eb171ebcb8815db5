"""What clients can follow, and who may.

::

    # shop/topics.py
    from realtime import Topic, action, register

    @register("orders.<int:pk>")
    class OrderTopic(Topic):
        pk: int

        def can_subscribe(self, user):
            return Order.objects.filter(pk=self.pk, customer=user).exists()

Modules named ``topics`` are imported from every installed app, as ``admin.py`` is.
Nothing is allowed that a topic does not allow.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async
from django.core.exceptions import PermissionDenied
from django.urls.converters import get_converters
from django.utils.module_loading import autodiscover_modules

from realtime.exceptions import InvalidTopicName, UnknownTopic
from realtime.protocol.names import Pattern, escape_key
from realtime.threads import USER_THREADS
from realtime.topics.class_checks import check_annotations, check_class
from realtime.topics.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django import forms
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

__all__ = [
    "EveryoneTopic",
    "Topic",
    "UserTopic",
    "action",
    "autodiscover",
    "find",
    "isolated",
    "patterns",
    "register",
    "registry",
    "resolve",
    "run_user_code",
    "unregister",
    "user_topic",
]

logger = logging.getLogger("realtime")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound="type[Topic]")

_MARK = "_realtime_action"


def action(method: F) -> F:
    """Let clients call a topic's method: ``topic.call("rename", data)`` in the browser.

    The method, sync or async, takes the user and the data and returns what JSON can hold.
    It runs for clients that may subscribe; for anything finer it raises ``PermissionDenied``, and
    ``ValidationError`` for data that it does not take.
    """
    if not inspect.isfunction(method):
        raise TypeError(f"@action goes on a method, above other decorators, not on {method!r}")
    if method.__name__.startswith("_"):
        raise TypeError(f"clients cannot call {method.__name__}(): its name begins with _")
    setattr(method, _MARK, True)
    return method


async def run_user_code(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function of the project's, sync or async, and return its result.

    A sync one runs in ``USER_THREADS``, with old database connections closed around it.
    Whatever it raises is raised.
    """
    if not iscoroutinefunction(function):
        result = await _run_in_thread(function, *args)
    else:
        result = function(*args)
    # A sync function may return a coroutine that it was given: a partial, a decorated method.
    return await result if inspect.isawaitable(result) else result


async def _run_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    in_thread = database_sync_to_async(
        function, thread_sensitive=False, executor=USER_THREADS.executor
    )
    return await in_thread(*args)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Topic:
    """Something that clients can follow.

    A subclass is registered with a pattern and annotates the pattern's values, which are filled
    from the name: of ``resolve("orders.42")`` and of ``OrderTopic(pk=42)`` alike, ``pk`` is 42 and
    ``str()`` is ``"orders.42"``.
    Two topics of one name are equal.

    Attributes:
        max_events: how many of the newest events the log keeps.
        max_age: how long the log keeps an event.
        client_events: names of the events that clients may publish to one another without a log.
        stored_client_events: the same, but appended to the log.
        anonymous: True lets the methods below see users who are not signed in; otherwise those
            are refused without being asked about.
        history: False lets subscribers resume, but not read what was published long before.
        presence: True tells subscribers who else is there; see ``realtime.presence``.
        admin_forms: for names of events, the ``Form`` by which the admin asks for their data, which
            is then its ``cleaned_data``; objects of models in it become their primary keys.

    Raises:
        TypeError: a value is missing or unknown, or the class is not registered.
        InvalidTopicValue: no name has a value like this.
        InvalidTopicName: the name is too long, or it belongs to a more specific pattern.
    """

    max_events: ClassVar[int] = 1000
    max_age: ClassVar[timedelta] = timedelta(days=1)  # a laptop closed overnight still resumes
    client_events: ClassVar[AbstractSet[str]] = frozenset()
    stored_client_events: ClassVar[AbstractSet[str]] = frozenset()
    anonymous: ClassVar[bool] = False
    history: ClassVar[bool] = True
    presence: ClassVar[bool] = False
    admin_forms: ClassVar[Mapping[str, type[forms.BaseForm]]] = {}

    _actions: ClassVar[frozenset[str]] = frozenset()
    _fields: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        marks: dict[str, bool] = {}
        for base in reversed(cls.__mro__):
            # An override without the mark takes the action away.
            marks |= {name: getattr(value, _MARK, False) for name, value in vars(base).items()}
        cls._actions = frozenset(name for name, marked in marks.items() if marked is True)
        check_class(cls, Topic, cls._actions)

    def __init__(self, *values: Any, **fields: Any) -> None:
        cls = type(self)
        pattern = registry.get(cls)
        if pattern is None:
            raise TypeError(
                f'{cls.__qualname__} has no pattern: put @register("…") above it, and have its app '
                "in INSTALLED_APPS"
            )
        if values:
            wanted = ", ".join(f"{param}=…" for param in pattern.params)
            raise TypeError(f"values are given by name: write {cls.__qualname__}({wanted})")
        name, filled = pattern.fill(fields)
        for rival in registry.rivals(cls):
            if rival.match(name) is not None:
                raise InvalidTopicName(name, f"it belongs to the more specific {rival.text!r}")
        vars(self).update(filled, _name=name)

    @classmethod
    def _from_name(cls, name: str, values: Mapping[str, Any]) -> Topic:
        """Return the topic of a name that the pattern has matched already."""
        topic = cls.__new__(cls)
        vars(topic).update(values, _name=name)
        return topic

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute in self._fields or attribute == "_name":
            raise AttributeError(f"{attribute} of {self!r} is part of its name; make another topic")
        super().__setattr__(attribute, value)

    def __str__(self) -> str:
        name: str = vars(self)["_name"]
        return name

    def __repr__(self) -> str:
        fields = (f"{field}={vars(self).get(field)!r}" for field in sorted(self._fields))
        return f"{type(self).__name__}({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Topic) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def can_subscribe(self, user: Any) -> bool | Awaitable[bool]:
        """Return whether a user may follow this topic; sync or async. By default nobody may.

        It is asked again whenever permissions may have changed, so it tells what is, not what was.
        """
        return False

    def can_publish(self, user: Any, event: str) -> bool | Awaitable[bool]:
        """Return whether a user may publish one of the client events; sync or async.

        By default nobody may.
        ``event`` is its name, one of ``client_events`` and ``stored_client_events``.
        """
        return False

    def member_info(self, user: Any) -> Any:
        """Return what others see of a member, up to 1 KB of JSON; sync or async. By default None.

        Asked when a connection of the user's begins to follow the topic, which shows what the first
        of them got.
        """
        return None

    async def may_subscribe(self, user: AbstractBaseUser | AnonymousUser) -> bool:
        """Ask ``can_subscribe()``; an exception in it denies and is logged."""
        return await self._allows(self.can_subscribe, user)

    async def may_publish(self, user: AbstractBaseUser | AnonymousUser, event: str) -> bool:
        """Ask ``can_publish()`` about a client event; no other event may be published.

        An exception in it denies and is logged.
        """
        if event not in self.client_events and event not in self.stored_client_events:
            return False
        return await self._allows(self.can_publish, user, event)

    def get_action(self, name: str) -> Callable[[Any, Any], Any] | None:
        """Return the method that clients call by this name, or None.

        It takes the user and the data and is run by ``run_user_code()``, after ``may_subscribe()``.
        """
        return getattr(self, name) if name in self._actions else None

    async def _allows(self, method: Callable[..., Any], user: Any, *args: Any) -> bool:
        try:
            if not self.anonymous and not getattr(user, "is_authenticated", False):
                return False
            return bool(await run_user_code(_truth(method), user, *args))
        except PermissionDenied:
            return False  # a way to say no
        except Exception:
            name = getattr(method, "__name__", repr(method))
            logger.exception("%s() of %r failed, which denies", name, self)
            return False


def _truth(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a sync authoriser that judges its result in its own thread.

    A queryset is asked for its truth there, where it may use the database.
    """
    if iscoroutinefunction(method):
        return method

    def judged(*args: Any) -> Any:
        result = method(*args)
        return result if inspect.isawaitable(result) else bool(result)

    return judged


registry = Registry(Topic)
patterns = registry.patterns
unregister = registry.remove
isolated = registry.isolated


def register(pattern: str) -> Callable[[T], T]:
    """Return a class decorator that gives a topic its names.

    Args:
        pattern: such as ``orders.<int:pk>``; see ``realtime.protocol.names``. The converters are
            Django's path converters and those of ``register_converter()``.

    Raises:
        InvalidPattern: the text is no pattern.
        TypeError: there are no parentheses.
        TypeError: (the decorator) the class is no Topic, has a pattern already, or its annotations
            are not the pattern's values.
    """
    if inspect.isclass(pattern):
        raise TypeError(
            f'@register takes the pattern of the names: write @register("orders.<int:pk>"), with '
            f"your own, above {pattern.__qualname__}"
        )
    parsed = Pattern(pattern, get_converters())

    def decorator(cls: T) -> T:
        check_annotations(cls, Topic, parsed)
        registry.add(cls, parsed)
        cls._fields = frozenset(parsed.params)
        return cls

    return decorator


def find(name: str) -> Topic | None:
    """Return the topic of a name, or None if no pattern matches.

    Raises:
        InvalidTopicName: the name breaks the grammar.
    """
    found = registry.find(name)
    if found is None:
        return None
    cls, values = found
    return cls._from_name(name, values)


def resolve(name: str) -> Topic:
    """Return the topic of a name.

    Raises:
        InvalidTopicName: the name breaks the grammar.
        UnknownTopic: no pattern matches; the error lists the nearest ones, which takes a
            millisecond for a hundred patterns: ``find()`` asks on behalf of clients.
        TypeError: it is a class of topics.
    """
    if inspect.isclass(name):
        raise TypeError(_no_topic(name))
    topic = find(name)
    if topic is None:
        raise UnknownTopic(name, registry.nearest(name), registry.misread(name))
    return topic


def _no_topic(cls: type) -> str:
    pattern = registry.get(cls)
    values = ", ".join(f"{param}=…" for param in pattern.params) if pattern else "…"
    return (
        f"{cls.__qualname__} is a class of topics; make one of them: {cls.__qualname__}({values})"
    )


def autodiscover() -> None:
    """Import the module ``topics`` of every installed app that has one."""
    autodiscover_modules("topics")


@register("user.<str:key>")
class UserTopic(Topic):
    """What concerns one user, who alone may follow it."""

    key: str

    async def can_subscribe(self, user: Any) -> bool:
        """Allow the user whose primary key it is."""
        return self.key == escape_key(str(user.pk))


@register("everyone")
class EveryoneTopic(Topic):
    """What concerns every user who is signed in."""

    async def can_subscribe(self, user: Any) -> bool:
        """Allow them all."""
        return True


def user_topic(user: AbstractBaseUser) -> UserTopic:
    """Return the topic that only this user may follow: ``user.<primary key>``.

    Characters of the key that a name cannot have are written with ``~``.

    Raises:
        ValueError: the user has no primary key: is anonymous, or not saved yet.
    """
    if user.pk is None:
        raise ValueError(f"{user!r} has no primary key, so there is no topic of its own")
    return UserTopic(key=escape_key(str(user.pk)))
