"""What clients are told first, and what they may run under the rules of each topic.

The same on every transport; the answers are the transport's.
"""

from __future__ import annotations

from django.core.exceptions import PermissionDenied, ValidationError

from realtime.auth.users import Identity
from realtime.exceptions import InvalidTopicName, ProtocolError
from realtime.presence import log_of
from realtime.protocol.commands import Call, Members, Publish
from realtime.protocol.dialogue import forbidden
from realtime.protocol.events import Draft
from realtime.protocol.frames import ErrorCode, welcome
from realtime.publishing import encode, publish_draft
from realtime.stores import get_store
from realtime.stores.base import MemberList
from realtime.topics import Topic, find, run_user_code, user_topic

__all__ = ["find_topic", "greeting", "run_call", "run_members", "run_publish"]


def greeting(connection_id: str, identity: Identity) -> str:
    """Return the first frame of a connection, which names the topics that it may want to follow."""
    user = identity.user
    if user is None or not user.is_authenticated:
        return welcome(connection_id, None, [])
    names = [str(user_topic(user)), "everyone"]
    return welcome(connection_id, str(user.pk), [name for name in names if identity.allows(name)])


def find_topic(name: str, identity: Identity) -> Topic:
    """Return the topic of a name, if the client's token is for it.

    Raises:
        ProtocolError: it is not, or there is none; the same as if the user were refused.
    """
    try:
        topic = find(name)
    except InvalidTopicName:
        topic = None
    if topic is None or not identity.allows(name):
        raise forbidden()
    return topic


async def run_publish(identity: Identity, command: Publish) -> None:
    """Publish a client's event, if the topic and its authoriser let it.

    Raises:
        ProtocolError: they do not.
        PublishError, InvalidData: it could not be published.
    """
    topic = find_topic(command.topic, identity)
    if not await topic.may_publish(identity.user, command.event):
        raise forbidden()
    ephemeral = command.event in topic.client_events
    draft = Draft(command.event, encode(command.data))
    await publish_draft(topic, draft, ephemeral=ephemeral)


async def run_call(identity: Identity, command: Call) -> str:
    """Run an action and return the JSON text of its result.

    Raises:
        ProtocolError: it is not allowed, unknown, or refused the data.
        Exception: what the action raised otherwise.
    """
    topic, user = find_topic(command.topic, identity), identity.user
    if not await topic.may_subscribe(user):
        raise forbidden()
    method = topic.get_action(command.action)
    if method is None:
        raise ProtocolError(ErrorCode.UNKNOWN_ACTION, "this topic has no such action")
    try:
        return encode(await run_user_code(method, user, command.data))
    except PermissionDenied as error:
        raise forbidden() from error
    except ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID, "; ".join(error.messages)) from error


async def run_members(identity: Identity, command: Members) -> MemberList:
    """Return who is on a topic, for a client that may follow it.

    Raises:
        ProtocolError: it may not.
        PresenceDisabled: the topic keeps no presence.
        StoreError: who is there cannot be read now.
    """
    topic = find_topic(command.topic, identity)
    if not await topic.may_subscribe(identity.user):
        raise forbidden()
    return await get_store().amembers(log_of(topic))
