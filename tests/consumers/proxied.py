"""The test project behind a proxy of its own machine, with rates that a test can use up."""

from django.conf import settings

from tests.asgi import application

__all__ = ["application"]

settings.REALTIME = {
    "TRUSTED_PROXIES": ["127.0.0.1", "unix"],
    "LIMITS": {"commands_per_second": 1, "commands_burst": 5},
}
