"""Views that publish, as a project's views would."""

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from realtime.events import Event
from realtime.publishing import apublish, publish


def _said(event: Event | None) -> HttpResponse:
    return HttpResponse("waits" if event is None else str(event.seq))


class Broken(Exception):
    """What a view raises when it is asked to."""


def _fail(request: HttpRequest) -> None:
    if "fail" in request.GET:
        raise Broken


def publish_sync(request: HttpRequest) -> HttpResponse:
    event = publish("public.news", "sync")
    _fail(request)
    return _said(event)


def publish_atomic(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        event = publish("public.news", "atomic")
        _fail(request)
    return _said(event)


async def publish_async(request: HttpRequest) -> HttpResponse:
    return _said(await apublish("public.news", "async"))


urlpatterns = [
    path("admin/", admin.site.urls),
    path("publish/sync/", publish_sync),
    path("publish/atomic/", publish_atomic),
    path("publish/async/", publish_async),
]
