"""The template tags: ``{% load realtime %}``.

::

    {% realtime_script %}
    {% realtime_subscribe order_topic since=cursor %}

The first loads the page's client, the second follows a topic and turns its events into DOM events;
``docs/javascript.md`` says what a page does with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.forms.utils import flatatt
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.functional import Promise
from django.utils.html import format_html

from realtime import conf
from realtime.protocol.commands import parse_since
from realtime.protocol.events import Cursor, check_event_name
from realtime.request_time import began, store_time
from realtime.topics import Topic, resolve

try:
    from django.middleware.csp import get_nonce  # from Django 6.0 on
except ImportError:

    def get_nonce(request: HttpRequest) -> None:  # type: ignore[misc]
        """There is none."""


if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.template import Context
    from django.utils.safestring import SafeString

__all__ = ["realtime_script", "realtime_subscribe", "register"]

register = template.Library()

MAX_LAST = 999_999_999  # what the element takes; no log keeps as many
TRANSPORTS = ("websocket", "sse", "longpoll", "poll")
NOW = "now"  # what a page says that wants nothing from before it connects
OWN = "user"  # what <realtime-topic> calls the topic of whoever is signed in


@register.simple_tag(takes_context=True)
def realtime_script(context: Context, *, transport: str | None = None) -> SafeString:
    """Load the client and give the page ``window.realtime``; once a page, in its head.

    It says where this site serves events and, if the template has the request, for which user the
    page was made, so that a page out of a cache finds out that somebody else has signed in.
    A nonce is added where Django's content security policy or django-csp has one for the request.

    Args:
        context: the template's; nobody gives it.
        transport: the only one of ``TRANSPORTS`` that the page shall use; it finds the best one by
            itself if None.

    Raises:
        ValueError: there is no such transport.
    """
    request: HttpRequest | None = context.get("request")
    attributes: dict[str, str] = {
        "src": static("realtime/realtime.js"),
        "data-realtime-url": f"{get_script_prefix()}{conf.get().prefix}",
    }
    user = getattr(request, "user", None)
    if user is not None:
        attributes["data-realtime-user"] = str(user.pk) if user.is_authenticated else ""
    if (since := _began(context)) is not None:
        attributes["data-realtime-since"] = since
    if transport is not None:
        if transport not in TRANSPORTS:
            raise ValueError(f"transport={transport!r} is none of {', '.join(TRANSPORTS)}")
        attributes["data-realtime-transport"] = transport
    nonce = _nonce(context, request)
    if nonce is not None:
        attributes["nonce"] = nonce
    return format_html('<script type="module"{}></script>', flatatt(attributes))


def _nonce(context: Context, request: HttpRequest | None) -> str | None:
    """Return the nonce of this request, which the asking itself puts into the policy."""
    # django-csp's, then Django's, then what a context processor has made. They are lazy and false
    # until they are used, so only None is none.
    nonce = getattr(request, "csp_nonce", None)
    if nonce is None and request is not None:
        nonce = get_nonce(request)
    if nonce is None:
        nonce = context.get("csp_nonce")
    return None if nonce is None else str(nonce)


@register.simple_tag(takes_context=True)
def realtime_subscribe(
    context: Context,
    topic: Topic | str,
    on: str = "",
    *,
    since: Cursor | str | None = None,
    last: int | None = None,
) -> SafeString:
    """Follow a topic as long as the element that this makes is on the page.

    Args:
        context: the template's; nobody gives it.
        topic: a ``Topic``, a topic's name, or ``"user"``: the topic of whoever is signed in.
        on: names of events, separated by spaces; all events if empty.
        since: the cursor that the view took before it read what the page shows
            (``realtime.log.head()``), or ``@`` and seconds since 1970. Without it, and without
            ``last``, it is the moment in which the request began, so that nothing that the page
            lacks is missing; what came in the second before may come once more. ``"now"`` begins
            when the page connects.
        last: begin with so many of the newest events.

    Raises:
        UnknownTopic: no registered pattern matches; the error lists the nearest.
        InvalidTopicName, InvalidEventName: a name breaks the grammar; a topic that is empty or
            None is most often a variable that the template does not have.
        InvalidCursor: ``since`` is neither a cursor nor a moment.
        ValueError: both ``since`` and ``last`` were given, ``since`` is empty, which is a variable
            that the template does not have, or ``last`` is no number that makes sense.
        TypeError: ``on`` is no text.
    """
    if since == "":
        # Nothing would be the wrong thing to make of it: the page could miss an event.
        raise ValueError("realtime_subscribe: since is empty; has the view set this variable?")
    if since is not None and last is not None:
        raise ValueError("realtime_subscribe takes since or last, not both")
    if since is None and last is None:
        since = _began(context)
    attributes: dict[str, str] = {"name": OWN if topic == OWN else _name(topic)}
    if not isinstance(on, str):
        raise TypeError(f"realtime_subscribe: on={on!r} is not text with the names of events")
    if names := on.split():
        attributes["on"] = " ".join(check_event_name(name) for name in names)
    if since not in (None, NOW):
        attributes["since"] = str(since)
        parse_since(attributes["since"])
    if last is not None:
        attributes["last"] = str(_count(last))
    return format_html("<realtime-topic{}></realtime-topic>", flatatt(attributes))


def _began(context: Context) -> str | None:
    """Return when the page's request began, on the store's clock, as ``since`` has it."""
    request = context.get("request")
    moment = None if request is None else began(request)
    return None if moment is None else f"@{max(0.0, store_time(moment)):.3f}"


def _name(topic: Topic | str) -> str:
    # A lazy text, such as a translated one, is as good as text.
    name = str(topic) if isinstance(topic, Topic | Promise) else topic
    return str(resolve(name))


def _count(last: Any) -> int:
    if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last <= MAX_LAST:
        raise ValueError(
            f"realtime_subscribe: last={last!r} is not a whole number from 0 to {MAX_LAST}"
        )
    return last
