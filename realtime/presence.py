"""Who is on a topic: one member a user, however many tabs, devices and nodes.

::

    from realtime import presence

    presence.members("orders.42")  # [Member(id="user.7", user="7", info={"name": "Ada"})]

A topic with ``presence = True`` keeps it.
A visitor who is not signed in is one member a connection.
``Topic.member_info(user)`` says what others see.

A member is there from its first subscription to a few seconds after the last one ended, so that a
reload is no leave; after a process was killed, until the others have given it up (``nodes``).
Joins and leaves are events of an internal log, whose ``seq`` is their ``version``.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from realtime.exceptions import InvalidData, PresenceDisabled
from realtime.protocol.encoders import encode_data
from realtime.protocol.events import Member
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import MemberList
from realtime.topics import Topic, resolve, run_user_code, user_topic

__all__ = ["INFO_BYTES", "Member", "amembers", "log_of", "member_id", "member_text", "members"]

logger = logging.getLogger("realtime")

INFO_BYTES = 1_024  # of one member's info: a list of a thousand members stays under a megabyte


def log_of(topic: Topic | str) -> str:
    """Return the name of a topic's presence log.

    Raises:
        UnknownTopic: no registered pattern matches.
        PresenceDisabled: the topic keeps no presence.
    """
    found = topic if isinstance(topic, Topic) else resolve(topic)
    if not found.presence:
        raise PresenceDisabled(str(found), type(found).__qualname__)
    return presence_log(str(found))


def members(topic: Topic | str) -> list[Member]:
    """Return who is on a topic now, in the order in which they came.

    Raises:
        UnknownTopic: no registered pattern matches.
        PresenceDisabled: the topic keeps no presence.
        StoreUnavailable: the store cannot be read now.
    """
    return _read(get_store().members(log_of(topic)))


async def amembers(topic: Topic | str) -> list[Member]:
    """Async version of ``members()``."""
    return _read(await get_store().amembers(log_of(topic)))


def _read(roster: MemberList) -> list[Member]:
    return [Member(**json.loads(text)) for text in roster.members.values()]


def member_id(user: Any, connection: str) -> str:
    """Return the id of the member that a connection is of."""
    if user is not None and user.is_authenticated:
        return str(user_topic(user))
    return f"connection.{connection}"


async def member_text(topic: Topic, user: Any, id: str) -> str:
    """Return the JSON text of a member, as others see it.

    An error in ``member_info()`` is logged, and the member has no info.
    """
    is_user = user is not None and user.is_authenticated
    text = json.dumps({"id": id, "user": str(user.pk) if is_user else None})
    try:
        info = await run_user_code(topic.member_info, user)
        info_text = encode_data(info, DjangoJSONEncoder().default, INFO_BYTES)
    except InvalidData as error:
        logger.error("member_info() of %r: %s", topic, error)
        info_text = "null"
    except Exception:
        logger.exception("member_info() of %r failed", topic)
        info_text = "null"
    return f'{text[:-1]}, "info": {info_text}}}'
