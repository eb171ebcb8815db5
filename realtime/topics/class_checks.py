"""Check a topic class when it is defined, because a misspelt attribute would have no effect."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from django import forms
from django.urls import converters

from realtime.protocol.events import check_event_name
from realtime.protocol.names import Pattern
from realtime.topics.registry import annotated_fields

__all__ = ["check_annotations", "check_class"]

# A name this similar to a known one counts as a typo, such as `max_event` or `can_subcribe`.
_SIMILARITY = 0.85
# The arguments with which the library calls these methods, in addition to self.
_METHOD_ARGUMENTS = {
    "can_subscribe": ("user",),
    "can_publish": ("user", "event"),
    "member_info": ("user",),
}
_ACTION_ARGUMENTS = ("user", "data")
# Only these exact classes are checked; a subclass in the project can return any type.
_CONVERTED_TYPES: dict[type, type] = {
    converters.IntConverter: int,
    converters.SlugConverter: str,
    converters.StringConverter: str,
    converters.UUIDConverter: uuid.UUID,
}
# The annotations that are checked; any other annotation is accepted.
_CHECKED_TYPES = (bool, bytes, float, int, str, uuid.UUID)


class _TopicClass(Protocol):
    """The attributes of ``Topic`` that are checked."""

    max_events: ClassVar[int]
    max_age: ClassVar[timedelta]
    client_events: ClassVar[AbstractSet[str]]
    stored_client_events: ClassVar[AbstractSet[str]]
    admin_forms: ClassVar[Mapping[str, type[forms.BaseForm]]]
    presence: ClassVar[bool]


def check_class(cls: type[_TopicClass], base: type, actions: AbstractSet[str]) -> None:
    """Check the attributes and methods of a topic class, and freeze its sets and its mapping.

    Args:
        cls: the class to check.
        base: ``Topic``, whose attributes are the known names.
        actions: the names of the class's actions.

    Raises:
        TypeError, ValueError: an attribute or method is wrong; the error says how to correct it.
    """
    _check_names(cls, base, actions)
    _check_attributes(cls)
    _check_admin_forms(cls)
    for name, arguments in _METHOD_ARGUMENTS.items():
        _check_method(cls, name, arguments)
    for name in sorted(actions):
        _check_method(cls, name, _ACTION_ARGUMENTS)


def check_annotations(cls: object, base: type, pattern: Pattern) -> None:
    """Check that the annotations agree with the types that the pattern's converters return.

    Only contradictions between Django's own converters and common types are reported.

    Raises:
        TypeError: an annotation contradicts its converter.
    """
    if not inspect.isclass(cls) or not issubclass(cls, base):
        return  # the registry rejects the class
    annotated = annotated_fields(cls, base)
    for segment in pattern.segments:
        actual = _CONVERTED_TYPES.get(type(segment.converter))
        if segment.param is None or actual is None or segment.param not in annotated:
            continue
        declared = _checked_type(annotated[segment.param])
        # Type checkers accept an int for a float, too.
        if declared is None or issubclass(actual, declared) or (actual, declared) == (int, float):
            continue
        raise TypeError(
            f"{cls.__qualname__} ({pattern.text!r}) annotates {segment.param!r} as "
            f"{declared.__name__}, but <{segment.converter_name}:{segment.param}> returns "
            f"{actual.__name__}: write `{segment.param}: {actual.__name__}`, or use another "
            "converter"
        )


def _checked_type(annotation: Any) -> type | None:
    """Return the type that an annotation names, if it is one of ``_CHECKED_TYPES``."""
    if isinstance(annotation, type):
        return annotation if annotation in _CHECKED_TYPES else None
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "")
    module, _, name = text.strip("\"' ").rpartition(".")
    for checked in _CHECKED_TYPES:
        if name == checked.__name__ and module in ("", checked.__module__):
            return checked
    return None


def _check_names(cls: type, base: type, actions: Iterable[str]) -> None:
    """Raise TypeError for a name that is probably a typo of an attribute of the base class."""
    known = [name for name in vars(base) if not name.startswith("_")]
    where = cls.__qualname__
    for name in vars(cls):
        if name.startswith("_") or name in known or name in actions:
            continue
        similar = get_close_matches(name, known, 1, _SIMILARITY)
        if similar:
            raise TypeError(
                f"{where}.{name} has no meaning for a topic; did you mean {similar[0]!r}? If it is "
                f"your own, give it a less similar name, or name it _{name}"
            )


def _check_attributes(cls: type[_TopicClass]) -> None:
    where = cls.__qualname__
    max_events: Any = cls.max_events
    max_age: Any = cls.max_age
    if type(max_events) is not int or max_events < 0:
        raise TypeError(
            f"{where}.max_events is {max_events!r}; set it to a whole number, 0 to keep no events"
        )
    if not isinstance(max_age, timedelta) or max_age <= timedelta(0):
        raise TypeError(f"{where}.max_age is {max_age!r}; set it to a positive timedelta")
    if not isinstance(cls.presence, bool):
        raise TypeError(f"{where}.presence is {cls.presence!r}; set it to True or False")
    for attribute in ("client_events", "stored_client_events"):
        events = getattr(cls, attribute)
        if not isinstance(events, set | frozenset | list | tuple):
            raise TypeError(
                f'{where}.{attribute} is {events!r}; set it to a set of names such as {{"typing"}}'
            )
        setattr(cls, attribute, frozenset(map(check_event_name, events)))
    both = cls.client_events & cls.stored_client_events
    if both:
        raise ValueError(
            f"{where}.client_events and .stored_client_events share {', '.join(sorted(both))}; "
            "put each name into one of them"
        )


def _check_admin_forms(cls: type[_TopicClass]) -> None:
    where = f"{cls.__qualname__}.admin_forms"
    given: Any = cls.admin_forms
    if not isinstance(given, Mapping):
        raise TypeError(
            f'{where} is {given!r}; set it to a dict such as {{"shipped": ShippedForm}}'
        )
    for name, form in given.items():
        check_event_name(name)
        _check_form(f"{where}[{name!r}]", form)
    cls.admin_forms = MappingProxyType(dict(given))


def _check_form(where: str, form: Any) -> None:
    if not inspect.isclass(form) or not issubclass(form, forms.BaseForm):
        raise TypeError(f"{where} is {form!r}; set it to a subclass of django.forms.Form")
    files = [
        name
        for name, field in getattr(form, "base_fields", {}).items()
        if isinstance(field, forms.FileField)
    ]
    if files:
        raise TypeError(
            f"{where}: {form.__qualname__} has a file field ({', '.join(files)}), and files cannot "
            "be published: upload the file elsewhere and publish its URL"
        )


def _check_method(cls: type, name: str, arguments: tuple[str, ...]) -> None:
    """Raise TypeError if a method cannot be called with the arguments that the library passes."""
    method = inspect.getattr_static(cls, name)
    function, parameters = method, ("self", *arguments)
    if isinstance(method, staticmethod):
        function, parameters = method.__func__, arguments
    elif isinstance(method, classmethod):
        function, parameters = method.__func__, ("cls", *arguments)
    elif not inspect.isfunction(method):
        if not callable(method) and not hasattr(method, "__get__"):
            raise TypeError(
                f"{cls.__qualname__}.{name} is {method!r}, not a method: "
                f"write `def {name}({', '.join(parameters)})`"
            )
        return  # a partial or another callable object, whose signature is not checked
    mismatch = _signature_mismatch(function, parameters)
    if mismatch is not None:
        raise TypeError(
            f"{cls.__qualname__}.{name}() is called with {' and '.join(arguments)}, which it does "
            f"not take ({mismatch}): write `def {name}({', '.join(parameters)})`"
        )


def _signature_mismatch(function: Callable[..., Any], arguments: tuple[str, ...]) -> str | None:
    """Return why a function cannot be called with these positional arguments, or None."""
    try:
        # A decorator's wrapper is called, so its own signature counts, not the wrapped function's.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # a function in C without a signature
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return None
