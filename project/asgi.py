"""The demo's ASGI application.

A project without WebSockets of its own needs only `with_realtime(get_asgi_application())`.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase
from django.urls import path
from django.views.static import serve

from project.browsers import SeparateBrowsers
from realtime.asgi import with_realtime
from realtime.consumers.echo import EchoConsumer


class StaticFiles(ASGIStaticFilesHandler):
    """Serve static files, because Daphne does not.

    They come from the apps under DEBUG, and from STATIC_ROOT otherwise.
    """

    def serve(self, request: HttpRequest) -> HttpResponseBase:
        if settings.DEBUG:
            return super().serve(request)
        return serve(request, self.file_path(request.path), document_root=settings.STATIC_ROOT)


site = with_realtime(
    ProtocolTypeRouter(
        {
            "http": StaticFiles(get_asgi_application()),
            "websocket": URLRouter([path("echo/", EchoConsumer.as_asgi())]),
        }
    )
)
application = SeparateBrowsers(site, settings.DEMO_BROWSERS)
