"""The app."""

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

HERE = {"localhost", "127.0.0.1", "[::1]", "testserver"}  # the last one is Django's test client


class DeskConfig(AppConfig):
    name = "project.desk"
    verbose_name = "Order desk"

    def ready(self) -> None:
        """Refuse to start where others could reach a site that asks for no password.

        Raises:
            ImproperlyConfigured: DEMO_PERSONAS is on and ALLOWED_HOSTS has hosts of elsewhere.
        """
        elsewhere = set(settings.ALLOWED_HOSTS) - HERE
        if settings.DEMO_PERSONAS and elsewhere:
            raise ImproperlyConfigured(
                f"ALLOWED_HOSTS has {', '.join(sorted(elsewhere))}, and DEMO_PERSONAS signs in "
                "everybody without a password: turn it off, or serve this machine alone"
            )
