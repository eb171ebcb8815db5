"""Identify a client: by its token if it sends one, else by its session.

Channels' ``AuthMiddlewareStack`` is not used, for two reasons. It waits three times for the thread
that synchronous views share. And like Django's ``get_user()``, it changes the session if the
session's hash was made with an old secret or password. Such a change needs a new cookie, which a
connection cannot send, so the user would be signed out.
This module only reads the session, with one call to a thread of our own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.core.exceptions import PermissionDenied, ValidationError
from django.http.cookie import parse_cookie
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from realtime import conf
from realtime.auth.tokens import Grant, read_token
from realtime.exceptions import ProtocolError
from realtime.protocol.frames import CloseCode, ErrorCode
from realtime.repeated_errors import log_error
from realtime.user_code import IDENTITIES, source

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

__all__ = ["Expiry", "Identity", "bearer", "has_session", "identify", "unauthorized", "user_of"]

logger = logging.getLogger("realtime")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, and what it may use; ``REALTIME["AUTHENTICATE"]`` can return one.

    Attributes:
        user: an ``AnonymousUser`` if nobody is signed in; None in a project without
            ``django.contrib.auth``.
        topics: names of the only topics that the client may use; None for all that the user may
            use.
        expires: when the connection is closed, in seconds since 1970 (like the ``exp`` of a JSON
            Web Token); None for never.

    Raises:
        TypeError: ``topics`` is a string, or ``expires`` is not a finite number.
    """

    user: Any
    topics: Iterable[str] | None = None
    expires: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.topics, str):
            raise TypeError(f"topics={self.topics!r} is a string; pass a list of topic names")
        if self.topics is not None:
            object.__setattr__(self, "topics", frozenset(map(str, self.topics)))
        end: object = self.expires
        if end is not None and (not isinstance(end, int | float) or not math.isfinite(end)):
            raise TypeError(f"expires={end!r} is not a number; pass seconds since 1970")

    def allows(self, topic: str) -> bool:
        """Tell whether ``topics`` permits a topic; the topic also checks the user's permission."""
        return self.topics is None or topic in self.topics


class Expiry:
    """Calls a function when an identity expires, if it ever does; used on an event loop.

    Args:
        identity: the identity.
        expired: called once, on the loop.
    """

    __slots__ = ("_timer",)

    def __init__(self, identity: Identity, expired: Callable[[], None]) -> None:
        self._timer: asyncio.TimerHandle | None = None
        if identity.expires is not None:
            left = max(0.0, identity.expires - time.time())
            self._timer = asyncio.get_running_loop().call_later(left, expired)

    def cancel(self) -> None:
        """Stop the timer; the function is no longer called."""
        if self._timer is not None:
            self._timer.cancel()


def unauthorized() -> ProtocolError:
    """Return the error that refuses a token."""
    reason = "the token is not valid or has expired; get a new one"
    return ProtocolError(ErrorCode.UNAUTHORIZED, reason, close_code=CloseCode.SIGNED_OUT)


async def identify(scope: Mapping[str, Any], token: str | None = None) -> Identity:
    """Return who a client is.

    Args:
        scope: the ASGI scope.
        token: the client's token; None to use its ``Authorization: Bearer`` header.

    Raises:
        ProtocolError: the token is not valid; or too many clients wait to be identified; or the
            project's ``AUTHENTICATE``, the session engine or the authentication backend failed, for
            example because the database cannot be reached. The failure is logged; it does not make
            the client anonymous.
    """
    try:
        return await _identify(scope, bearer(scope) if token is None else token)
    except ProtocolError as error:
        if error.close_code is None:  # too many clients are waiting
            error.close_code = CloseCode.BUSY
        raise
    except Exception as error:
        log_error("identify", error, "a client could not be authenticated")
        reason = "the server cannot authenticate you now; try again in a few seconds"
        # This close code lets the client reconnect: its token may be valid after the failure.
        raise ProtocolError(ErrorCode.UNAVAILABLE, reason, close_code=CloseCode.FAILED) from error


async def _identify(scope: Mapping[str, Any], token: str | None) -> Identity:
    authenticate = conf.get().authenticate
    if authenticate is not None:
        found = await _ask_project(authenticate, scope, token)
        if found is not None:
            return found
    elif token is not None:
        grant: Grant | None = await IDENTITIES.run(source.get(), read_token, token)
        if grant is not None:
            return Identity(grant.user, grant.topics, grant.expires)
    if token is not None:
        raise unauthorized()
    return Identity(await user_of(scope))


async def _ask_project(path: str, scope: Mapping[str, Any], token: str | None) -> Identity | None:
    """Return the identity from the project's function; None if it returns no user.

    Raises:
        ProtocolError: the function raised ``PermissionDenied``, or the identity has expired.
        TypeError: the function returned something else.
        Exception: any other error of the function.
    """
    try:
        answer = await IDENTITIES.run(source.get(), import_string(path), scope, token)
    except PermissionDenied:
        raise unauthorized() from None
    found = answer if isinstance(answer, Identity) else Identity(answer)
    if found.user is None:
        return None
    if not hasattr(found.user, "is_authenticated") or not hasattr(found.user, "pk"):
        kind = type(found.user).__name__
        raise TypeError(f"{path} returned a {kind}; return a user, an Identity, or None")
    if found.expires is not None and found.expires <= time.time():
        raise unauthorized()
    return found


def bearer(scope: Mapping[str, Any]) -> str | None:
    """Return the token of an ``Authorization: Bearer`` header; None if there is none."""
    for header, value in scope["headers"]:
        if header.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return str(token.strip())
    return None


async def user_of(scope: Mapping[str, Any]) -> AbstractBaseUser | AnonymousUser | None:
    """Return the user of the session cookie.

    It is an ``AnonymousUser`` without a valid session, and None in a project without
    ``django.contrib.auth``.

    Raises:
        Exception: any error of the session engine or the authentication backend, for example
            because the database cannot be reached. An error does not make the client anonymous.
    """
    if not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.models import AnonymousUser

    key = _session_key(scope)
    if key is None or not apps.is_installed("django.contrib.sessions"):
        return AnonymousUser()
    user: AbstractBaseUser | None = await IDENTITIES.run(source.get(), _user_of_session, key)
    return user or AnonymousUser()


def has_session(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request has a session cookie that can be a session's, valid or not."""
    return _session_key(scope) is not None


def _session_key(scope: Mapping[str, Any]) -> str | None:
    name = conf.session_cookie_name()
    for header, value in scope["headers"]:
        if header.lower() == b"cookie" and (key := parse_cookie(value.decode("latin-1")).get(name)):
            # A cookie can quote any character, and PostgreSQL fails on NUL.
            return key if key.isascii() and key.isprintable() else None
    return None


def _user_of_session(key: str) -> AbstractBaseUser | None:
    from django.contrib.auth import (
        BACKEND_SESSION_KEY,
        HASH_SESSION_KEY,
        SESSION_KEY,
        get_user_model,
        load_backend,
    )

    session = import_module(conf.session_engine()).SessionStore(key)
    path = session.get(BACKEND_SESSION_KEY)
    if path not in conf.authentication_backends() or SESSION_KEY not in session:
        return None
    try:
        pk = cast("Any", get_user_model()._meta.pk).to_python(session[SESSION_KEY])
    except ValidationError:
        return None  # the session is older than a change of the key's type in the user model
    user: AbstractBaseUser | None = load_backend(path).get_user(pk)
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user
    sent = session.get(HASH_SESSION_KEY, "")
    known = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    if not any(constant_time_compare(sent, hash) for hash in known):
        return None
    return user
