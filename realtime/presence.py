"""The members of a topic: one per user, whatever the number of tabs, devices and nodes.

::

    from realtime import presence

    presence.members("orders.42")  # [Member(id="user.7", user="7", info={"name": "Ada"})]

A topic class turns presence on with ``presence = True``.
A visitor who is not signed in is one member per connection.
``Topic.member_info(user)`` returns what others see of a user.

A user is a member from the first subscription until a few seconds after the last one ended, so that
reloading a page causes no leave. The members of a process that was killed leave when another node
declares it dead; see ``realtime.nodes``.
Joins and leaves are events in an internal log; the ``version`` of a member list is the ``seq`` of
the newest event in that log.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from realtime.exceptions import DataTooLarge, InvalidData, PresenceDisabled, ProtocolError
from realtime.protocol.encoders import encode_data
from realtime.protocol.events import Member
from realtime.protocol.names import presence_log
from realtime.repeated_errors import log_error
from realtime.stores import get_store
from realtime.stores.base import MemberList
from realtime.topics import Topic, resolve, user_topic
from realtime.user_code import PERMISSIONS, caller_of

__all__ = [
    "INFO_BYTES",
    "Member",
    "acount",
    "amembers",
    "count",
    "log_of",
    "member_id",
    "member_text",
    "members",
]

INFO_BYTES = 1_024  # maximum size of a member's info; a list of 1,000 members is then about 1 MB


def log_of(topic: Topic | str) -> str:
    """Return the name of a topic's presence log.

    Raises:
        UnknownTopic: no registered pattern matches.
        PresenceDisabled: the topic does not track presence; set ``presence = True`` on its class.
    """
    found = topic if isinstance(topic, Topic) else resolve(topic)
    if not found.presence:
        raise PresenceDisabled(str(found), type(found).__qualname__)
    return presence_log(str(found))


def members(topic: Topic | str) -> list[Member]:
    """Return all members of a topic, in the order in which they joined.

    Clients receive a list only up to ``LIMITS["members"]``; this function has no limit.

    Raises:
        UnknownTopic: no registered pattern matches.
        PresenceDisabled: the topic does not track presence; set ``presence = True`` on its class.
        StoreUnavailable: the store cannot be reached; try again.
    """
    return _read(get_store().members(log_of(topic)))


async def amembers(topic: Topic | str) -> list[Member]:
    """Async version of ``members()``."""
    return _read(await get_store().amembers(log_of(topic)))


def count(topic: Topic | str) -> int:
    """Return the number of members of a topic, without reading them.

    Raises:
        UnknownTopic, PresenceDisabled, StoreUnavailable: see ``members()``.
    """
    return get_store().members(log_of(topic), 0).count or 0


async def acount(topic: Topic | str) -> int:
    """Async version of ``count()``."""
    return (await get_store().amembers(log_of(topic), 0)).count or 0


def _read(stored: MemberList) -> list[Member]:
    return [Member(**json.loads(text)) for text in stored.members.values()]


def member_id(user: Any, connection: str) -> str:
    """Return a member id: the user's topic, or one made from the connection's id if anonymous."""
    if user is not None and user.is_authenticated:
        return str(user_topic(user))
    return f"connection.{connection}"


async def member_text(topic: Topic, user: Any, id: str) -> str:
    """Return the JSON text of a member, as other clients receive it.

    If ``member_info()`` fails, the error is logged and the member's info is null.

    Raises:
        ProtocolError: too many functions of the project are waiting; the client should try again.
    """
    is_user = user is not None and user.is_authenticated
    where = type(topic), "member_info"
    text = json.dumps({"id": id, "user": str(user.pk) if is_user else None})
    try:
        info = await PERMISSIONS.run(caller_of(user), topic.member_info, user)
        info_text = encode_data(info, DjangoJSONEncoder().default, INFO_BYTES)
    except DataTooLarge as error:
        reason = f"{error.size} bytes of JSON, and {error.limit} are allowed"
        # Without the error's own text: no setting raises this limit.
        log_error(where, ValueError(reason), "member_info() of %r is too large", topic)
        info_text = "null"
    except InvalidData as error:
        log_error(where, error, "member_info() of %r: %s", topic, error)
        info_text = "null"
    except ProtocolError:
        raise
    except Exception as error:
        log_error(where, error, "member_info() of %r failed", topic)
        info_text = "null"
    return f'{text[:-1]}, "info": {info_text}}}'
