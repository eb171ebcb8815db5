import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from realtime.asgi import with_realtime

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()  # before imports that need the app registry

from shop.consumers import GameConsumer  # noqa: E402

application = with_realtime(
    ProtocolTypeRouter(
        {
            "http": django_application,
            "websocket": AuthMiddlewareStack(
                URLRouter([path("game/", GameConsumer.as_asgi())]),
            ),
        }
    )
)
