"""The demo as an ASGI application.

A project whose WebSockets are ours alone writes `with_realtime(get_asgi_application())`.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.urls import path

from realtime.asgi import with_realtime
from realtime.consumers.echo import EchoConsumer

application = with_realtime(
    ProtocolTypeRouter(
        {
            # Daphne itself serves no static files; runserver would, and so does this under DEBUG.
            "http": ASGIStaticFilesHandler(get_asgi_application()),
            "websocket": URLRouter([path("echo/", EchoConsumer.as_asgi())]),
        }
    )
)
