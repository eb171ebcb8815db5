"""Tokens of the test project: ``<username>:<seconds since 1970>``, or for one request alone."""

from typing import Any

from django.contrib.auth import get_user_model

from realtime.auth import Identity

__all__ = ["until"]

_used: set[str] = set()


def until(scope: Any, token: str | None) -> Identity | None:
    """Return the user of a token; one that ends with ``:once`` is accepted once."""
    if token is None:
        return None
    name, end, *once = token.split(":")
    if once:
        if token in _used:
            return None
        _used.add(token)
    return Identity(get_user_model().objects.get(username=name), expires=float(end))
