"""Signed tokens, which identify clients that have no session cookie.

The project issues a token, for example to its mobile app or another of its services; the client
sends it in an ``Authorization: Bearer`` header or an ``auth`` frame.
A token is signed with ``SECRET_KEY`` and needs no database row. It is valid until it expires, the
user's password changes, or the user is deleted or deactivated.
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
LIFETIME = timedelta(hours=1)  # a client needs a new token before the old one expires
MAX_LENGTH = 8_192  # characters; a token for 100 topics has about 3,000


@dataclass(frozen=True, slots=True)
class Grant:
    """The content of a valid token.

    Attributes:
        user: whom the client acts as.
        topics: names of the only topics that the client may use; None for all that the user may
            use.
        expires: when the token expires, in seconds since 1970.
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
    """Return a token with which a client acts as a user.

    Args:
        user: whom the client acts as.
        topics: the only topics that the client may follow, publish to and call; None for all that
            the user may use. A token never gives a right that the user does not have.
        expires: how long the token is valid.

    Raises:
        ValueError: the user is not saved.
        UnknownTopic, InvalidTopicName: one of the topics does not exist.
    """
    if user.pk is None:
        raise ValueError(f"{user!r} has no primary key; save the user before making a token")
    payload: dict[str, Any] = {
        "u": str(user.pk),
        "h": _fingerprints(user)[0],
        "e": time.time() + expires.total_seconds(),
    }
    if topics is not None:
        payload["t"] = sorted({str(resolve(str(topic))) for topic in topics})
    return signing.dumps(payload, salt=SALT, compress=True)


def read_token(text: str) -> Grant | None:
    """Return the content of a token; None if it is not valid.

    This looks up the user in the database, so do not call it on an event loop.
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
        constant_time_compare(payload["h"], known) for known in _fingerprints(user)
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
    """Return hashes of the user's password, one per secret; the first is of ``SECRET_KEY``."""
    if not hasattr(user, "get_session_auth_hash"):
        return [""]
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    # These hashes are keyed already; a part of their digest does not reveal them.
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in hashes]
