"""The public API of topics: what clients can follow, and who is allowed to."""

from realtime.topics.base import (
    EveryoneTopic,
    Topic,
    UserTopic,
    action,
    autodiscover,
    find,
    isolated,
    patterns,
    register,
    resolve,
    unregister,
    user_topic,
)

__all__ = [
    "EveryoneTopic",
    "Topic",
    "UserTopic",
    "action",
    "autodiscover",
    "find",
    "isolated",
    "patterns",
    "register",
    "resolve",
    "unregister",
    "user_topic",
]
