"""How many an event would reach now: said before somebody publishes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext, ngettext

from realtime.exceptions import StoreError
from realtime.nodes import BEAT_SECONDS, Followers, followers_of
from realtime.presence import log_of
from realtime.stores import get_store

if TYPE_CHECKING:
    from realtime.topics import Topic

__all__ = ["audience_of"]


def audience_of(topic: Topic) -> str:
    """Return a sentence or two: the connections that follow a topic, and who is on it.

    Where the store cannot tell, it says that; publishing may work all the same.
    """
    try:
        followers = followers_of(str(topic))
        members = len(get_store().members(log_of(topic)).members) if topic.presence else None
    except StoreError as error:
        text = gettext("How many connections follow it cannot be told now: %(reason)s")
        return text % {"reason": error}
    said = [_followers(followers)]
    if members is not None:
        text = ngettext("%(count)d member is there.", "%(count)d members are there.", members)
        said.append(text % {"count": members})
    return " ".join(said)


def _followers(followers: Followers) -> str:
    count = followers.count
    values = {"count": count, "seconds": int(BEAT_SECONDS)}
    if not followers.is_exact:
        text = ngettext(
            "At least %(count)d connection follows it: a process follows too many topics to tell "
            "of each.",
            "At least %(count)d connections follow it: a process follows too many topics to tell "
            "of each.",
            count,
        )
    elif not count:
        text = gettext("No connection follows it, as of up to %(seconds)d seconds ago.")
    else:
        text = ngettext(
            "%(count)d connection follows it, as of up to %(seconds)d seconds ago.",
            "%(count)d connections follow it, as of up to %(seconds)d seconds ago.",
            count,
        )
    return text % values
