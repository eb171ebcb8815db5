"""The test project with less patience and a host of its own, for tests that would wait for long."""

import logging

from django.conf import settings

from realtime.writers import asgi
from tests.asgi import application

logging.getLogger("realtime").addHandler(logging.StreamHandler())
logging.getLogger("realtime").setLevel(logging.DEBUG)
asgi.STALL_SECONDS = 1.0
asgi.CLOSE_SECONDS = 1.0
settings.ALLOWED_HOSTS = ["127.0.0.1", "shop.example"]

__all__ = ["application"]
