"""The test project as an ASGI application, with `with_realtime` and an echo WebSocket."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from realtime.asgi import with_realtime
from realtime.consumers.echo import EchoConsumer

application = with_realtime(
    ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": URLRouter([path("echo/", EchoConsumer.as_asgi())]),
        }
    )
)
