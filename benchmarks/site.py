"""A whole Django project in one file, which the benchmarks serve with Daphne.

BENCHMARK_DB is the database: the path of a SQLite file, or the URL of a PostgreSQL.
With BENCHMARK_REDIS, a URL, the logs and the wake-ups are in Redis; with BENCHMARK_MEMORY they are
in the process.

``benchmarks.plain`` has the counterparts of plain Channels, which this site serves too.
"""

import os
import time
from typing import Any

import django
from django.conf import settings

from tests.support.databases import database_config

# All clients of a benchmark have one address, and thousands of them connect at the same time.
limits = {"anonymous_requests_per_second": 1_000_000}
engine: dict[str, Any] = {"REALTIME": {"LIMITS": limits}}
if url := os.environ.get("BENCHMARK_REDIS"):
    store = {"BACKEND": "realtime.stores.redis.RedisStore", "LOCATION": url}
    layer = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [url]},
    }
    engine = {"REALTIME": {"STORE": store, "LIMITS": limits}, "CHANNEL_LAYERS": {"default": layer}}

if os.environ.get("BENCHMARK_MEMORY"):
    engine = {
        "REALTIME": {
            "STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"},
            "LIMITS": limits,
        },
        "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    }

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": database_config(os.environ["BENCHMARK_DB"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "realtime",
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
    ],
    ROOT_URLCONF="benchmarks.site",
    SECRET_KEY="benchmark",
    USE_TZ=True,
    **engine,
)
django.setup()

from asgiref.sync import async_to_sync  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from benchmarks import plain  # noqa: E402
from realtime import Topic, action, publish, register  # noqa: E402
from realtime.asgi import with_realtime  # noqa: E402


@register("bench.<slug:name>")
class BenchTopic(Topic):
    """A topic that everybody can follow."""

    name: str
    anonymous = True

    async def can_subscribe(self, user: object) -> bool:
        return True


@register("slow.<slug:name>")
class SlowTopic(Topic):
    """A topic with a slow action; its permission is asked in a thread."""

    name: str
    anonymous = True

    def can_subscribe(self, user: object) -> bool:
        return True

    @action
    def work(self, user: object, data: object) -> None:
        time.sleep(0.5)


@register("signed.<slug:name>")
class SignedTopic(Topic):
    """A topic that every signed-in user can follow."""

    name: str

    async def can_subscribe(self, user: object) -> bool:
        return True


def publish_now() -> None:
    """Publish an event that carries the time at which it was published."""
    publish("bench.latency", "tick", {"at": time.time(), "filler": "x" * 100})


def send_now() -> None:
    """Send the same data to the group of plain Channels."""
    message = {"type": "deliver", "data": {"at": time.time(), "filler": "x" * 100}}
    async_to_sync(get_channel_layer().group_send)("plain", message)


def publish_view(request: HttpRequest) -> HttpResponse:
    publish_now()
    return HttpResponse()


def send_view(request: HttpRequest) -> HttpResponse:
    send_now()
    return HttpResponse()


urlpatterns = [
    path("publish/", publish_view),
    path("send/", send_view),
    path("plain/post/", plain.post),
]
pages: Any = get_asgi_application()  # Channels' routes can end in any application
application = with_realtime(
    ProtocolTypeRouter(
        {
            "http": URLRouter([*plain.streams, re_path("", pages)]),
            "websocket": URLRouter(plain.websockets),
        }
    )
)
