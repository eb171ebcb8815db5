"""Views that publish, and a page that follows a topic."""

import secrets
from string import Template

from django.contrib import admin
from django.contrib.auth import logout
from django.contrib.staticfiles.views import serve
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from realtime import log
from realtime.protocol.events import Event
from realtime.publishing import apublish, publish


def _seq_of(event: Event | None) -> HttpResponse:
    return HttpResponse("waits" if event is None else str(event.seq))


class Broken(Exception):
    """Raised by a view on request."""


def _fail(request: HttpRequest) -> None:
    if "fail" in request.GET:
        raise Broken


def publish_sync(request: HttpRequest) -> HttpResponse:
    event = publish("public.news", "sync")
    _fail(request)
    return _seq_of(event)


def publish_atomic(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        event = publish("public.news", "atomic")
        _fail(request)
    return _seq_of(event)


async def publish_async(request: HttpRequest) -> HttpResponse:
    return _seq_of(await apublish("public.news", "async"))


def publish_excluded(request: HttpRequest) -> HttpResponse:
    return _seq_of(publish("public.news", "excluded", exclude=request))


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


PAGE = Template("""<!doctype html>
<title>A page that follows</title>
<link rel="icon" href="data:,">
<script type="module" nonce="$nonce" src="/static/realtime/realtime.js"
  data-realtime-url="/realtime/" data-realtime-user="$user"
  data-realtime-transport="$transport"></script>
<script type="module" nonce="$nonce">
  const options = new URLSearchParams(location.search);
  window.seen = [];
  window.changes = [];
  realtime.addEventListener("transportchange", ({transport}) => changes.push(transport));
  window.topic = realtime.subscribe("$topic", {since: "$since"});
  topic.on("*", (data, event) => seen.push(event.seq));
  topic.onDenied(({code}) => seen.push(code));
  topic.onReset(() => {
    sessionStorage.resets = Number(sessionStorage.resets ?? 0) + 1;
    if (options.has("reload")) location.reload();
  });
  window.addEventListener("pageshow", ({persisted}) => { window.persisted = persisted; });
</script>
<a href="/page/public.other/">elsewhere</a>
""")


def page(request: HttpRequest, topic: str) -> HttpResponse:
    """Follow a topic from its head, or from ?since, like a page from a cache.

    ?transport selects the transport.
    """
    since = request.GET.get("since") or str(log.head(topic))
    nonce = secrets.token_urlsafe()
    names = {"user": request.user.pk or "", "transport": request.GET.get("transport", "auto")}
    text = PAGE.substitute(names, nonce=nonce, topic=topic, since=since)
    policy = f"default-src 'self'; script-src 'nonce-{nonce}'; img-src 'self' data:"
    return HttpResponse(text, headers={"Content-Security-Policy": policy})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("publish/sync/", publish_sync),
    path("publish/atomic/", publish_atomic),
    path("publish/async/", publish_async),
    path("publish/excluded/", publish_excluded),
    path("logout/", sign_out),
    path("page/<str:topic>/", page),
    path("", include("tests.testapp.pages")),
    path("static/<path:path>", serve, {"insecure": True}),
]
