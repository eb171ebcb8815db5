"""A topic's form filled in from a stored event, whose data anybody may have published."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django import forms
from django.utils.dateparse import parse_datetime

__all__ = ["fill_in"]

logger = logging.getLogger("realtime")

MakeForm = Callable[..., forms.BaseForm]


def fill_in(make: MakeForm, data: Any) -> tuple[forms.BaseForm, bool]:
    """Return a form that shows what it can of an event's data, and whether it shows some.

    Args:
        make: makes the form; takes ``initial``.
        data: of the event. What is no dict fills nothing in, nor does a value for which there is
            no field, or one that the field cannot show.
    """
    empty = make()
    given = data if isinstance(data, dict) else {}
    wanted = {key: _value(empty.fields[key], given[key]) for key in given if key in empty.fields}
    if not wanted:
        return empty, False
    try:
        form = make(initial=wanted)
        shown = {key: value for key, value in wanted.items() if _is_shown(form, key)}
        # Only a new form forgets what it has begun to show.
        return (form if shown == wanted else make(initial=shown)), bool(shown)
    except Exception:
        logger.debug("a form cannot begin with the data of a stored event", exc_info=True)
        return empty, False


def _value(field: forms.Field, value: Any) -> Any:
    """Return a moment for a field of several widgets, which splits it; JSON has it as text."""
    if isinstance(field, forms.MultiValueField | forms.DateTimeField) and isinstance(value, str):
        try:
            return parse_datetime(value) or value
        except ValueError:  # such as the 30th of February
            return value
    return value


def _is_shown(form: forms.BaseForm, name: str) -> bool:
    try:
        str(form[name])
    except Exception:
        logger.debug("the field %s cannot show the data of a stored event", name, exc_info=True)
        return False
    return True
