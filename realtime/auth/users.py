"""Who a client is: the user of its session.

Channels' ``AuthMiddlewareStack`` is not used: it waits three times for the thread that synchronous
views share, and both it and Django's ``get_user()`` write to the session when its hash is of an old
secret or password.
A connection cannot send the cookie that such a change asks for, so it would sign the user out.
What is here only reads, in one visit to our own threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from channels.db import database_sync_to_async
from django.apps import apps
from django.core.exceptions import ValidationError
from django.http.cookie import parse_cookie
from django.utils.crypto import constant_time_compare

from realtime import conf
from realtime.threads import USER_THREADS

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

__all__ = ["user_of"]


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
