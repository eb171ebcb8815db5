"""Who a client is: the user of its token if it has one, else of its session.

Channels' ``AuthMiddlewareStack`` is not used: it waits three times for the thread that synchronous
views share, and both it and Django's ``get_user()`` write to the session when its hash is of an old
secret or password.
A connection cannot send the cookie that such a change asks for, so it would sign the user out.
What is here only reads, in one visit to our own threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from channels.db import database_sync_to_async
from django.apps import apps
from django.core.exceptions import ValidationError
from django.http.cookie import parse_cookie
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from realtime import conf
from realtime.auth.tokens import Grant, read_token
from realtime.exceptions import ProtocolError
from realtime.frames import CloseCode, ErrorCode
from realtime.threads import USER_THREADS
from realtime.topics import run_user_code

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

__all__ = ["Expiry", "Identity", "bearer", "has_session", "identify", "unauthorized", "user_of"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, and what its token is for.

    Attributes:
        user: an ``AnonymousUser`` for nobody; None in a project without ``django.contrib.auth``.
        topics: names of the only topics that it may use; None for all that the user may.
        expires: seconds since 1970 at which it ends; None for no end.
    """

    user: Any
    topics: frozenset[str] | None = None
    expires: float | None = None

    def allows(self, topic: str) -> bool:
        """Tell whether the token is for a topic; the topic is asked about the user besides."""
        return self.topics is None or topic in self.topics


class Expiry:
    """Calls a function when an identity ends, if it ever does; used on a loop.

    Args:
        identity: whose end.
        ended: called once, on the loop.
    """

    def __init__(self, identity: Identity, ended: Callable[[], None]) -> None:
        self._timer: asyncio.TimerHandle | None = None
        if identity.expires is not None:
            left = max(0.0, identity.expires - time.time())
            self._timer = asyncio.get_running_loop().call_later(left, ended)

    def cancel(self) -> None:
        """Call it no more."""
        if self._timer is not None:
            self._timer.cancel()


def unauthorized() -> ProtocolError:
    """Return the refusal of a token."""
    reason = "the token is not valid, or not any more; get a new one"
    return ProtocolError(ErrorCode.UNAUTHORIZED, reason, close_code=CloseCode.SIGNED_OUT)


async def identify(scope: Mapping[str, Any], token: str | None = None) -> Identity:
    """Return who a client is.

    Args:
        scope: the ASGI scope.
        token: what the client presented; that of its ``Authorization: Bearer`` header if None.

    Raises:
        ProtocolError: it presented a token that is not valid.
        Exception: what the project's ``AUTHENTICATE``, the session engine or the authentication
            backend raises, such as a database that is away; nobody is anonymous because of it.
    """
    token = bearer(scope) if token is None else token
    authenticate = conf.get().authenticate
    if authenticate is not None:
        user = await run_user_code(import_string(authenticate), scope, token)
        if user is not None:
            return Identity(user)
    elif token is not None:
        look_up = database_sync_to_async(
            read_token, thread_sensitive=False, executor=USER_THREADS.executor
        )
        grant: Grant | None = await look_up(token)
        if grant is not None:
            return Identity(grant.user, grant.topics, grant.expires)
    if token is not None:
        raise unauthorized()
    return Identity(await user_of(scope))


def bearer(scope: Mapping[str, Any]) -> str | None:
    """Return the token of an ``Authorization`` header; None for none, and for other schemes."""
    for header, value in scope["headers"]:
        if header.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return str(token.strip())
    return None


async def user_of(scope: Mapping[str, Any]) -> AbstractBaseUser | AnonymousUser | None:
    """Return the user of the session whose cookie came with a connection.

    An ``AnonymousUser`` if there is none, and None in a project without ``django.contrib.auth``.

    Raises:
        Exception: what the session engine or the authentication backend raises, such as a
            database that is away; nobody is taken for anonymous because of it.
    """
    if not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.models import AnonymousUser

    key = _session_key(scope)
    if key is None or not apps.is_installed("django.contrib.sessions"):
        return AnonymousUser()
    look_up = database_sync_to_async(
        _user_of_session, thread_sensitive=False, executor=USER_THREADS.executor
    )
    user: AbstractBaseUser | None = await look_up(key)
    return user or AnonymousUser()


def has_session(scope: Mapping[str, Any]) -> bool:
    """Tell whether a session cookie came along, whoever's it is."""
    return _session_key(scope) is not None


def _session_key(scope: Mapping[str, Any]) -> str | None:
    name = conf.session_cookie_name()
    for header, value in scope["headers"]:
        if header.lower() == b"cookie" and (key := parse_cookie(value.decode("latin-1")).get(name)):
            return key
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
        return None  # of a time when users had keys of another type
    user: AbstractBaseUser | None = load_backend(path).get_user(pk)
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user
    sent = session.get(HASH_SESSION_KEY, "")
    known = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    if not any(constant_time_compare(sent, hash) for hash in known):
        return None
    return user
