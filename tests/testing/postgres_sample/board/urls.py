from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from realtime import log, presence, publish
from realtime.threads import PERMISSION_THREADS


def read(request: HttpRequest) -> JsonResponse:
    events = log.history("board", last=5)
    members = presence.members("board")
    return JsonResponse(
        {"head": log.head("board").seq, "events": len(events), "members": len(members)}
    )


@transaction.atomic
def write(request: HttpRequest) -> JsonResponse:
    publish("board", "moved", {"card": 1})
    return JsonResponse({})


def ask(request: HttpRequest) -> JsonResponse:
    from django.contrib.auth.models import User

    # What can_subscribe does for a client that connects.
    return JsonResponse({"users": PERMISSION_THREADS.submit(User.objects.count).result()})


urlpatterns = [path("read/", read), path("write/", write), path("ask/", ask)]
