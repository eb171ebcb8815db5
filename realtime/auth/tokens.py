"""Signed tokens: who a client is, for clients that have no session cookie.

A token is text that the project hands out, to its mobile app or another of its services, and that
comes back in an ``Authorization: Bearer`` header or an ``auth`` frame.
It is signed with ``SECRET_KEY`` and needs no row; it ends with its time, with the user's password,
and with the user.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django.core import signing
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare

from realtime.topics import Topic, resolve

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

__all__ = ["Grant", "make_token", "read_token"]

SALT = "realtime.auth.token"
LIFETIME = timedelta(hours=1)  # a page's or an app's session asks for another one in time
MAX_LENGTH = 8_192  # characters of a token that are looked at: 100 topics are some 3,000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says.

    Attributes:
        user: whose it is.
        topics: names of the only topics that it is for; None for all that the user may.
        expires: seconds since 1970.
    """

    user: AbstractBaseUser
    topics: frozenset[str] | None
    expires: float


def make_token(
    user: AbstractBaseUser,
    *,
    topics: Iterable[Topic | str] | None = None,
    expires: timedelta = LIFETIME,
) -> str:
    """Return a token with which a client is this user.

    Args:
        user: whom the client will be.
        topics: the only topics that it may follow, publish to and call; all that the user may if
            None. A token gives no right that the user has not.
        expires: from now on.

    Raises:
        ValueError: the user is not saved.
        UnknownTopic, InvalidTopicName: one of the topics does not exist.
    """
    if user.pk is None:
        raise ValueError(f"{user!r} has no primary key; a token is for a user who is saved")
    payload: dict[str, Any] = {
        "u": str(user.pk),
        "h": _fingerprints(user)[0],
        "e": time.time() + expires.total_seconds(),
    }
    if topics is not None:
        payload["t"] = sorted({str(resolve(str(topic))) for topic in topics})
    return signing.dumps(payload, salt=SALT, compress=True)


def read_token(text: str) -> Grant | None:
    """Return what a token says; None if it is not ours, has expired, or its user is gone.

    Looks the user up, so it is no function for an event loop.
    """
    if len(text) > MAX_LENGTH:
        return None
    try:
        payload = signing.loads(text, salt=SALT)
        expires = float(payload["e"])
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        return None
    if expires <= time.time():
        return None
    user = _user(payload["u"])
    if user is None or not any(
        constant_time_compare(payload["h"], one) for one in _fingerprints(user)
    ):
        return None
    topics = payload.get("t")
    return Grant(user, None if topics is None else frozenset(topics), expires)


def _user(key: str) -> AbstractBaseUser | None:
    from django.contrib.auth import get_user_model

    model = get_user_model()
    try:
        pk = cast("Any", model._meta.pk).to_python(key)
    except ValidationError:
        return None
    user = model._default_manager.filter(pk=pk).first()
    return user if user is not None and user.is_active else None


def _fingerprints(user: AbstractBaseUser) -> list[str]:
    """Return what changes with the user's password; the first is of today's ``SECRET_KEY``."""
    if not hasattr(user, "get_session_auth_hash"):
        return [""]
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    # They are keyed already; a part of their digest gives nothing of them away.
    return [hashlib.sha256(one.encode()).hexdigest()[:16] for one in hashes]
