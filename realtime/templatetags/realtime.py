"""The template tags: ``{% load realtime %}``.

::

    {% realtime_script %}
    {% realtime_subscribe order_topic since=cursor %}

The first loads the client, the second follows a topic and turns its events into DOM events;
``docs/javascript.md`` describes how a page uses them.
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
        """Return None: Django has no content security policy before 6.0."""


if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.template import Context
    from django.utils.safestring import SafeString

__all__ = ["realtime_script", "realtime_subscribe", "register"]

register = template.Library()

MAX_LAST = 999_999_999  # the limit of <realtime-topic>; no log keeps that many events
TRANSPORTS = ("websocket", "sse", "longpoll", "poll")
NOW = "now"  # the `since` of a page that needs no events from before it connects
OWN = "user"  # the name in <realtime-topic> for the topic of the signed-in user


@register.simple_tag(takes_context=True)
def realtime_script(context: Context, *, transport: str | None = None) -> SafeString:
    """Load the client, which sets ``window.realtime``; use it once per page, in the head.

    The tag writes the URL at which the app is mounted and, if the context has the request, the user
    for whom the page was rendered: a cached page then notices that another user is signed in.
    It adds a nonce if Django's content security policy or django-csp has one for the request.

    Args:
        context: the template context, which Django passes.
        transport: the one of ``TRANSPORTS`` to use; None to let the client choose.

    Raises:
        ValueError: there is no such transport.
    """
    request: HttpRequest | None = context.get("request")
    attributes: dict[str, str] = {
        "src": static("realtime/realtime.js"),
        # Browsers take "//" and "/\\" at the start for another host, and Daphne takes the root path
        # from a header of the request.
        "data-realtime-url": "/" + get_script_prefix().lstrip("/\\") + conf.get().prefix,
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
    """Return the nonce of this request; reading it adds it to the policy."""
    # The nonce comes from django-csp, Django or a context processor. It is lazy, and false until
    # it is used, so compare it with None.
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
    """Write an element that follows a topic for as long as it is on the page.

    Args:
        context: the template context, which Django passes.
        topic: a ``Topic``, a topic's name, or ``"user"`` for the topic of the signed-in user.
        on: names of events, separated by spaces; all events if empty.
        since: a cursor (``realtime.log.head()``) that the view took before it read what the page
            shows; or ``@`` and seconds since 1970; or ``"now"`` for the time at which the page
            connects. Without ``since`` and ``last``, the page starts slightly before the time at
            which its request began: it misses no event, and can receive some that it already shows.
        last: start with this many of the newest events.

    Raises:
        UnknownTopic: no registered pattern matches; the error lists the nearest patterns.
        InvalidTopicName, InvalidEventName: a name breaks the grammar. If the topic is empty or
            None, the template most often lacks a variable.
        InvalidCursor: ``since`` is neither a cursor nor a time.
        ValueError: both ``since`` and ``last`` were given; or ``since`` is empty, most often
            because the template lacks a variable; or ``last`` is out of range.
        TypeError: ``on`` is not text.
    """
    if since == "":
        # Do not treat it as None: the page could miss events.
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
    """Return the time at which the page's request began, by the store's clock, as a ``since``."""
    request = context.get("request")
    started = None if request is None else began(request)
    return None if started is None else f"@{max(0.0, store_time(started)):.3f}"


def _name(topic: Topic | str) -> str:
    # Accept lazy text, such as a translation.
    name = str(topic) if isinstance(topic, Topic | Promise) else topic
    return str(resolve(name))


def _count(last: Any) -> int:
    if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last <= MAX_LAST:
        raise ValueError(
            f"realtime_subscribe: last={last!r} is not a whole number from 0 to {MAX_LAST}"
        )
    return last
