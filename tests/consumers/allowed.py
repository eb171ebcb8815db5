"""The test project with allowed pages of another origin."""

from django.conf import settings

from tests.asgi import application

__all__ = ["application"]

settings.REALTIME = {"ALLOWED_ORIGINS": ["https://*.example.com"]}
