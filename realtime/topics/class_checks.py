"""What is wrong with a topic's class, said when it is made: later it would do nothing, silently."""

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

_ALIKE = 0.85  # `max_event`, `client_event` and `can_subcribe` are more alike than that
# What the library calls these methods with, besides the topic itself.
_ASKED = {
    "can_subscribe": ("user",),
    "can_publish": ("user", "event"),
    "member_info": ("user",),
}
_ACTION = ("user", "data")
# Exactly these classes: one of the project's that is derived from them may make anything.
_MADE: dict[type, type] = {
    converters.IntConverter: int,
    converters.SlugConverter: str,
    converters.StringConverter: str,
    converters.UUIDConverter: uuid.UUID,
}
# The annotations that are judged; all others may be right for reasons that are not seen here.
_JUDGED = (bool, bytes, float, int, str, uuid.UUID)


class _Declared(Protocol):
    """The part of ``Topic`` that is checked."""

    max_events: ClassVar[int]
    max_age: ClassVar[timedelta]
    client_events: ClassVar[AbstractSet[str]]
    stored_client_events: ClassVar[AbstractSet[str]]
    admin_forms: ClassVar[Mapping[str, type[forms.BaseForm]]]
    presence: ClassVar[bool]


def check_class(cls: type[_Declared], base: type, actions: AbstractSet[str]) -> None:
    """Refuse what a subclass of the base sets wrongly, and freeze its sets and its mapping.

    Raises:
        TypeError, ValueError: something is wrong; the text says what to do.
    """
    _check_names(cls, base, actions)
    _check_attributes(cls)
    _check_admin_forms(cls)
    for name, given in _ASKED.items():
        _check_method(cls, name, given)
    for name in sorted(actions):
        _check_method(cls, name, _ACTION)


def check_annotations(cls: object, base: type, pattern: Pattern) -> None:
    """Refuse an annotation of another type than the pattern's converter makes.

    Only what is certain is refused: Django's converters and the commonest types.

    Raises:
        TypeError: the annotation contradicts the converter.
    """
    if not inspect.isclass(cls) or not issubclass(cls, base):
        return  # the registry refuses it
    annotated = annotated_fields(cls, base)
    for segment in pattern.segments:
        made = _MADE.get(type(segment.converter))
        if segment.param is None or made is None or segment.param not in annotated:
            continue
        judged = _judged(annotated[segment.param])
        # A float may be given as an int, for type checkers too.
        if judged is None or issubclass(made, judged) or (made, judged) == (int, float):
            continue
        raise TypeError(
            f"{cls.__qualname__} ({pattern.text!r}) annotates {segment.param!r} as "
            f"{judged.__name__}, but <{segment.converter_name}:{segment.param}> makes "
            f"{made.__name__}: write `{segment.param}: {made.__name__}`, or take another converter"
        )


def _judged(annotation: Any) -> type | None:
    """Return the type that an annotation names, if it is one of those that are judged."""
    if isinstance(annotation, type):
        return annotation if annotation in _JUDGED else None
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "")
    module, _, name = text.strip("\"' ").rpartition(".")
    for judged in _JUDGED:
        if name == judged.__name__ and module in ("", judged.__module__):
            return judged
    return None


def _check_names(cls: type, base: type, actions: Iterable[str]) -> None:
    """Refuse names that look like one of the base's and mean nothing."""
    known = [name for name in vars(base) if not name.startswith("_")]
    where = cls.__qualname__
    for name in vars(cls):
        if name.startswith("_") or name in known or name in actions:
            continue
        meant = get_close_matches(name, known, 1, _ALIKE)
        if meant:
            raise TypeError(
                f"{where}.{name} means nothing to a topic; did you mean {meant[0]!r}? If it is "
                f"one of your own, give it a name less alike, or _{name}"
            )


def _check_attributes(cls: type[_Declared]) -> None:
    where = cls.__qualname__
    max_events: Any = cls.max_events
    max_age: Any = cls.max_age
    if type(max_events) is not int or max_events < 0:
        raise TypeError(f"{where}.max_events is {max_events!r}, not a whole number; 0 keeps none")
    if not isinstance(max_age, timedelta) or max_age <= timedelta(0):
        raise TypeError(f"{where}.max_age is {max_age!r}, not a positive timedelta")
    if not isinstance(cls.presence, bool):
        raise TypeError(f"{where}.presence is {cls.presence!r}, neither True nor False")
    for attribute in ("client_events", "stored_client_events"):
        events = getattr(cls, attribute)
        if not isinstance(events, set | frozenset | list | tuple):
            raise TypeError(f'{where}.{attribute} is {events!r}, not a set such as {{"typing"}}')
        setattr(cls, attribute, frozenset(map(check_event_name, events)))
    both = cls.client_events & cls.stored_client_events
    if both:
        raise ValueError(
            f"{where}.client_events and .stored_client_events share {', '.join(sorted(both))}"
        )


def _check_admin_forms(cls: type[_Declared]) -> None:
    where = f"{cls.__qualname__}.admin_forms"
    given: Any = cls.admin_forms
    if not isinstance(given, Mapping):
        raise TypeError(f'{where} is {given!r}, not a dict such as {{"shipped": ShippedForm}}')
    for name, form in given.items():
        check_event_name(name)
        _check_form(f"{where}[{name!r}]", form)
    cls.admin_forms = MappingProxyType(dict(given))


def _check_form(where: str, form: Any) -> None:
    if not inspect.isclass(form) or not issubclass(form, forms.BaseForm):
        raise TypeError(f"{where} is {form!r}, not a class derived from django.forms.Form")
    files = [
        name
        for name, field in getattr(form, "base_fields", {}).items()
        if isinstance(field, forms.FileField)
    ]
    if files:
        raise TypeError(
            f"{where}: {form.__qualname__} asks for a file ({', '.join(files)}), and files cannot "
            "be published: upload it elsewhere and publish its URL"
        )


def _check_method(cls: type, name: str, given: tuple[str, ...]) -> None:
    """Refuse a method that cannot be called with what the library gives it."""
    method = inspect.getattr_static(cls, name)
    function, taken = method, ("self", *given)
    if isinstance(method, staticmethod):
        function, taken = method.__func__, given
    elif isinstance(method, classmethod):
        function, taken = method.__func__, ("cls", *given)
    elif not inspect.isfunction(method):
        if not callable(method) and not hasattr(method, "__get__"):
            raise TypeError(f"{cls.__qualname__}.{name} is {method!r}, not a method")
        return  # a partial, or another object that knows by itself what it is called with
    misfit = _misfit(function, taken)
    if misfit is not None:
        raise TypeError(
            f"{cls.__qualname__}.{name}() is called with {' and '.join(given)}, which it does not "
            f"take ({misfit}): write `def {name}({', '.join(taken)})`"
        )


def _misfit(function: Callable[..., Any], taken: tuple[str, ...]) -> str | None:
    """Return why a function cannot be called with so many positional arguments, or None."""
    try:
        # What is called is a decorator's wrapper, whatever it says that it wraps.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # of C
    try:
        signature.bind(*taken)
    except TypeError as error:
        return str(error)
    return None
