"""A whole Django project in one file, which the benchmarks serve with Daphne.

The databases are SQLite files or PostgreSQL, as BENCHMARK_DB says; with BENCHMARK_REDIS, a URL, the
logs and the wake-ups are in Redis.
"""

import os
import time
from typing import Any

import django
from django.conf import settings

from tests.support.databases import database_config

in_redis: dict[str, Any] = {}
if url := os.environ.get("BENCHMARK_REDIS"):
    store = {"BACKEND": "realtime.stores.redis.RedisStore", "LOCATION": url}
    layer = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [url]},
    }
    in_redis = {"REALTIME": {"STORE": store}, "CHANNEL_LAYERS": {"default": layer}}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": database_config(os.environ["BENCHMARK_DB"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["realtime", "django.contrib.contenttypes", "django.contrib.auth"],
    ROOT_URLCONF="benchmarks.site",
    SECRET_KEY="benchmark",
    USE_TZ=True,
    **in_redis,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from realtime import Topic, publish, register  # noqa: E402
from realtime.asgi import with_realtime  # noqa: E402


@register("bench.<slug:name>")
class BenchTopic(Topic):
    """Everybody may follow."""

    name: str
    anonymous = True

    async def can_subscribe(self, user: object) -> bool:
        return True


def publish_now() -> None:
    """Publish an event that carries the moment of its publish."""
    publish("bench.latency", "tick", {"at": time.time(), "filler": "x" * 100})


def publish_view(request: HttpRequest) -> HttpResponse:
    publish_now()
    return HttpResponse()


urlpatterns = [path("publish/", publish_view)]
application = with_realtime(get_asgi_application())
