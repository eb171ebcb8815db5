"""Topics: what clients can follow, and who is allowed to.

::

    # shop/topics.py
    from realtime import Topic, action, register

    @register("orders.<int:pk>")
    class OrderTopic(Topic):
        pk: int

        def can_subscribe(self, user):
            return Order.objects.filter(pk=self.pk, customer=user).exists()

The module ``topics`` of every installed app is imported at startup, as ``admin`` is.
Everything that a topic does not explicitly allow is denied.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404
from django.urls.converters import get_converters
from django.utils.module_loading import autodiscover_modules

from realtime import conf
from realtime.exceptions import InvalidTopicName, ProtocolError, UnknownTopic
from realtime.outage import means_unavailable
from realtime.protocol.dialogue import unavailable
from realtime.protocol.names import Pattern, escape_key
from realtime.repeated_errors import log_error
from realtime.topics.class_checks import check_annotations, check_class
from realtime.topics.registry import Registry
from realtime.user_code import PERMISSIONS, caller_of

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
    "unregister",
    "user_topic",
]

logger = logging.getLogger("realtime")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound="type[Topic]")

_ACTION_MARK = "_realtime_action"


def action(method: F) -> F:
    """Allow clients to call a method of a topic: ``topic.call("rename", data)`` in the browser.

    The method, sync or async, takes the user and the data, and returns a value with a JSON form.
    Only clients that are allowed to subscribe can call it. For finer permissions, raise
    ``PermissionDenied`` in the method; for invalid data, raise ``ValidationError``.

    Raises:
        TypeError: the decorated object is not a function, or its name begins with ``_``.
    """
    if not inspect.isfunction(method):
        raise TypeError(
            f"@action decorates a method, not {method!r}; put it above the other decorators"
        )
    if method.__name__.startswith("_"):
        raise TypeError(
            f"clients cannot call {method.__name__}(), because its name begins with _; rename it"
        )
    setattr(method, _ACTION_MARK, True)
    return method


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Topic:
    """Base class of topics, which clients can follow.

    Register a subclass with a pattern, and annotate each value of the pattern.
    ``OrderTopic(pk=42)`` and ``resolve("orders.42")`` return equal topics: ``topic.pk`` is 42, and
    ``str(topic)`` is ``"orders.42"``.
    Two topics with the same name are equal.

    Attributes:
        max_events: maximum number of events in the log; older ones are trimmed.
        max_age: maximum age of an event in the log; older ones are trimmed.
        client_events: names of the events that clients can publish and that are not stored in the
            log.
        stored_client_events: names of the events that clients can publish and that are stored.
        anonymous: False denies users who are not signed in. True lets ``can_subscribe()`` and
            ``can_publish()`` decide about them, too.
        history: False hides events older than five minutes from clients that do not resume.
        presence: True shows subscribers the members of the topic; see ``realtime.presence``.
        admin_forms: maps event names to the ``Form`` with which the admin asks for their data. The
            event's data is the form's ``cleaned_data``, with model objects replaced by their
            primary keys.

    Raises:
        TypeError: a value is missing or unknown, or the class is not registered.
        InvalidTopicValue: the pattern does not accept a value.
        InvalidTopicName: the name is too long, or it belongs to a more specific pattern.
    """

    max_events: ClassVar[int] = 1000
    max_age: ClassVar[timedelta] = timedelta(days=1)  # a laptop closed overnight can still resume
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
            # An override without @action is no longer an action.
            marks |= {
                name: getattr(value, _ACTION_MARK, False) for name, value in vars(base).items()
            }
        cls._actions = frozenset(name for name, marked in marks.items() if marked is True)
        check_class(cls, Topic, cls._actions)

    def __init__(self, *values: Any, **fields: Any) -> None:
        cls = type(self)
        pattern = registry.get(cls)
        if pattern is None:
            raise TypeError(
                f'{cls.__qualname__} has no pattern: put @register("…") above it, and its app into '
                "INSTALLED_APPS"
            )
        if values:
            keywords = ", ".join(f"{param}=…" for param in pattern.params)
            raise TypeError(f"values are passed by name: write {cls.__qualname__}({keywords})")
        name, filled = pattern.fill(fields)
        for other in registry.more_specific(cls):
            if other.match(name) is not None:
                raise InvalidTopicName(
                    name, f"it belongs to the more specific pattern {other.text!r}"
                )
        vars(self).update(filled, _name=name)

    @classmethod
    def _from_name(cls, name: str, values: Mapping[str, Any]) -> Topic:
        """Return the topic of a name that the pattern has already matched."""
        topic = cls.__new__(cls)
        vars(topic).update(values, _name=name)
        return topic

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute in self._fields or attribute == "_name":
            raise AttributeError(
                f"{attribute} is part of the name of {self!r} and cannot be changed; create "
                "another topic"
            )
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
        """Return whether a user is allowed to follow this topic; can be async. Default: False.

        It is called again whenever permissions can have changed, so do not cache its result.
        """
        return False

    def can_publish(self, user: Any, event: str) -> bool | Awaitable[bool]:
        """Return whether a user is allowed to publish a client event; can be async. Default: False.

        ``event`` is its name: one of ``client_events`` or ``stored_client_events``.
        """
        return False

    def member_info(self, user: Any) -> Any:
        """Return what the members of the topic see of a member; can be async. Default: None.

        The result is limited to 1 KB of JSON. The method is called whenever a connection of the
        user subscribes; while the user is a member, others see the result of the first call.
        """
        return None

    async def may_subscribe(self, user: AbstractBaseUser | AnonymousUser) -> bool:
        """Return the result of ``can_subscribe()``; if it fails, log the error and deny.

        Raises:
            ProtocolError: it could not be asked now, because a database or service that it needs
                failed, or because too many checks were waiting; the client should try again.
        """
        return await self._allows(self.can_subscribe, user)

    async def may_publish(self, user: AbstractBaseUser | AnonymousUser, event: str) -> bool:
        """Return the result of ``can_publish()``; False if the event is not a client event.

        Everything else is as in ``may_subscribe()``.
        """
        if event not in self.client_events and event not in self.stored_client_events:
            return False
        return await self._allows(self.can_publish, user, event)

    def get_action(self, name: str) -> Callable[[Any, Any], Any] | None:
        """Return the action of this name, or None.

        Check ``may_subscribe()`` first, then run it with ``user_code.ACTIONS``.
        """
        return getattr(self, name) if name in self._actions else None

    async def _allows(self, method: Callable[..., Any], user: Any, *args: Any) -> bool:
        name = getattr(method, "__name__", repr(method))
        where = type(self), name
        try:
            if not self.anonymous and not getattr(user, "is_authenticated", False):
                return False
            asked = PERMISSIONS.run(caller_of(user), _returning_bool(method), user, *args)
            result = await asked
        except ProtocolError:
            raise  # too many checks are waiting
        except (PermissionDenied, ObjectDoesNotExist, Http404):
            return False  # denied on purpose, so it is not logged
        except Exception as error:
            if means_unavailable(error):
                log_error(where, error, "%s() of %r could not be asked", name, self)
                raise unavailable() from error
            log_error(where, error, "%s() of %r failed, so permission is denied", name, self)
            return False
        if result is None and conf.debug():
            logger.warning(
                "%s() of %r returned None, so permission is denied; return True or False",
                name,
                self,
            )
        return bool(result)


def _returning_bool(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method so that it returns a bool, or None.

    The conversion of a sync method's result then runs in its thread, where the ``bool()`` of a
    queryset is allowed to query the database. If the conversion fails, the method has failed.
    """

    async def converted(awaitable: Awaitable[Any]) -> bool | None:
        result = await awaitable
        return None if result is None else bool(result)

    @wraps(method)
    def wrapper(*args: Any) -> Any:
        result = method(*args)
        if inspect.isawaitable(result):
            return converted(result)
        return None if result is None else bool(result)

    return markcoroutinefunction(wrapper) if iscoroutinefunction(method) else wrapper


registry = Registry(Topic)
patterns = registry.patterns
unregister = registry.remove
isolated = registry.isolated


def register(pattern: str) -> Callable[[T], T]:
    """Return a class decorator that registers a topic class with a pattern for its names.

    Args:
        pattern: the pattern, such as ``orders.<int:pk>``; see ``realtime.protocol.names``. It can
            use Django's path converters and those of ``register_converter()``.

    Raises:
        InvalidPattern: the text is not a pattern.
        TypeError: ``@register`` was used without parentheses.
        TypeError: (raised by the decorator) the class is not a subclass of ``Topic``, is already
            registered, or its annotations do not match the pattern's values.
    """
    if inspect.isclass(pattern):
        raise TypeError(
            'call @register with a pattern for the names: write @register("orders.<int:pk>"), with '
            f"your own pattern, above {pattern.__qualname__}"
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
        UnknownTopic: no pattern matches; the error lists the nearest ones. Finding them takes a
            millisecond for 100 patterns, so use ``find()`` for names that clients send.
        TypeError: the argument is a topic class.
    """
    if inspect.isclass(name):
        raise TypeError(_explain_class(name))
    topic = find(name)
    if topic is None:
        raise UnknownTopic(name, registry.nearest(name), registry.explain_mismatch(name))
    return topic


def _explain_class(cls: type) -> str:
    pattern = registry.get(cls)
    values = ", ".join(f"{param}=…" for param in pattern.params) if pattern else "…"
    return (
        f"{cls.__qualname__} is a topic class; create a topic of it: {cls.__qualname__}({values})"
    )


def autodiscover() -> None:
    """Import the module ``topics`` of every installed app that has one."""
    autodiscover_modules("topics")


@register("user.<str:key>")
class UserTopic(Topic):
    """A topic for one user; only that user is allowed to follow it."""

    key: str

    async def can_subscribe(self, user: Any) -> bool:
        """Allow the user with this primary key."""
        return self.key == escape_key(user.pk)


@register("everyone")
class EveryoneTopic(Topic):
    """A topic for every user who is signed in."""

    async def can_subscribe(self, user: Any) -> bool:
        """Allow every user who is signed in."""
        return True


def user_topic(user: AbstractBaseUser) -> UserTopic:
    """Return the topic that only this user is allowed to follow: ``user.<primary key>``.

    Characters of the key that are not allowed in a name are escaped with ``~``.

    Raises:
        ValueError: the user has no primary key, because it is anonymous or not saved yet.
    """
    if user.pk is None:
        raise ValueError(
            f"{user!r} has no primary key, so it has no topic; use a user that is saved"
        )
    return UserTopic(key=escape_key(user.pk))
