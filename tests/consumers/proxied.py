"""The test project behind a local proxy, with low rate limits."""

from django.conf import settings

from tests.asgi import application

__all__ = ["application"]

settings.REALTIME = {
    "TRUSTED_PROXIES": ["127.0.0.1", "unix"],
    "LIMITS": {"commands_per_second": 1, "commands_burst": 5},
}
