"""Settings, and the application, of a project with a worker."""

from typing import Any

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = ["channels", *INSTALLED_APPS]
CHANNEL_LAYERS = {"default": {"BACKEND": "realtime.layers.DatabaseChannelLayer"}}
ASGI_APPLICATION = "tests.layers.worker.application"


class Thumbnails(SyncConsumer):
    def generate(self, message: dict[str, Any]) -> None:
        answer = {"number": message["number"] * 2}
        async_to_sync(get_channel_layer().send)(message["reply_to"], answer)


application = ChannelNameRouter({"thumbnails": Thumbnails.as_asgi()})
