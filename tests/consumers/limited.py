"""The test project with low limits of what clients may do together and in bytes."""

from django.conf import settings

from realtime.consumers import rate_limits
from tests.asgi import application

__all__ = ["application"]

rate_limits.ANONYMOUS_BURST_SECONDS = 10
settings.REALTIME = {
    "LIMITS": {
        "anonymous_requests_per_second": 1,
        "publish_bytes_per_second": 1_000,
        "publish_bytes_burst": 100_000,
        "stored_client_bytes_per_day": 20_000,
    },
}
