"""The welcome frame and the commands, which are the same on every transport.

Each handler checks what its topic allows; the transport writes the answer.
"""

from __future__ import annotations

from django.core.exceptions import PermissionDenied, ValidationError

from realtime import conf
from realtime.auth.users import Identity
from realtime.consumers.quota import spend_quota
from realtime.exceptions import InvalidTopicName, ProtocolError, RealtimeError
from realtime.outage import means_unavailable
from realtime.presence import log_of
from realtime.protocol.commands import Call, Command, Members, Publish
from realtime.protocol.dialogue import forbidden, unavailable
from realtime.protocol.events import Draft
from realtime.protocol.frames import ErrorCode, welcome
from realtime.publishing import encode, publish_draft
from realtime.repeated_errors import log_error
from realtime.stores import get_store
from realtime.stores.base import MemberList
from realtime.topics import Topic, find, user_topic
from realtime.user_code import ACTIONS, caller_of

__all__ = [
    "find_topic",
    "log_failure",
    "run_call",
    "run_members",
    "run_publish",
    "welcome_for",
]


def welcome_for(connection_id: str, identity: Identity) -> str:
    """Return the text of a connection's first frame, which suggests topics to follow."""
    user = identity.user
    if user is None or not user.is_authenticated:
        return welcome(connection_id, None, [])
    names = [str(user_topic(user)), "everyone"]
    return welcome(connection_id, str(user.pk), [name for name in names if identity.allows(name)])


def find_topic(name: str, identity: Identity) -> Topic:
    """Return the topic with a name.

    Raises:
        ProtocolError: there is no such topic, or the client's token is not for it. The error is the
            same as for a user who may not follow the topic, unless a path converter could not reach
        its database or service now.
    """
    try:
        topic = find(name)
    except InvalidTopicName:
        topic = None
    except Exception as error:
        log_error("find", error, "a path converter failed for a client's topic")
        if means_unavailable(error):
            raise unavailable() from error
        topic = None
    if topic is None or not identity.allows(name):
        raise forbidden()
    return topic


async def run_publish(identity: Identity, command: Publish) -> None:
    """Publish a client's event.

    Raises:
        ProtocolError: the topic does not allow it, or the clients of the site have stored too much.
        PublishError, StoreError, InvalidData: the event could not be published.
    """
    topic = find_topic(command.topic, identity)
    if not await topic.may_publish(identity.user, command.event):
        raise forbidden()
    ephemeral = command.event in topic.client_events
    draft = Draft(command.event, encode(command.data))
    if not ephemeral:
        await spend_quota(len(draft.name) + len(draft.json.encode()))
    await publish_draft(topic, draft, ephemeral=ephemeral)


async def run_call(identity: Identity, command: Call) -> str:
    """Run an action and return the JSON text of its result.

    Raises:
        ProtocolError: the action is unknown or not allowed, it refused the data, or the user has
            too many calls under way.
        Exception: any other error of the action.
    """
    topic, user = find_topic(command.topic, identity), identity.user
    if not await topic.may_subscribe(user):
        raise forbidden()
    method = topic.get_action(command.action)
    if method is None:
        raise ProtocolError(ErrorCode.UNKNOWN_ACTION, "this topic has no such action")
    try:
        return encode(await ACTIONS.run(caller_of(user), method, user, command.data))
    except PermissionDenied as error:
        raise forbidden() from error
    except ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID, "; ".join(error.messages)) from error


async def run_members(identity: Identity, command: Members) -> MemberList:
    """Return the members of a topic, or only their number beyond ``LIMITS["members"]``.

    Raises:
        ProtocolError: the client may not follow the topic.
        PresenceDisabled: the topic keeps no presence.
        StoreError: the members cannot be read now.
    """
    topic = find_topic(command.topic, identity)
    if not await topic.may_subscribe(identity.user):
        raise forbidden()
    return await get_store().amembers(log_of(topic), conf.get().limits.members)


def log_failure(command: Command, error: Exception) -> None:
    """Log an unexpected error of a command, once a minute for its type and its topic's class."""
    if isinstance(error, RealtimeError):
        return
    name, what = getattr(command, "topic", ""), type(command).__name__.lower()
    topic = find(name) if name else None
    log_error((what, type(topic)), error, "a client's %s failed: %r", what, topic)
