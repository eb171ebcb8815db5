"""The app of the order desk."""

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]", "testserver"}  # testserver: Django's test client


class DeskConfig(AppConfig):
    name = "project.desk"
    verbose_name = "Order desk"

    def ready(self) -> None:
        """Refuse to start a public site that signs in visitors without a password.

        Raises:
            ImproperlyConfigured: DEMO_PERSONAS is on, and ALLOWED_HOSTS has hosts other than this
                machine.
        """
        other_hosts = set(settings.ALLOWED_HOSTS) - LOCAL_HOSTS
        if settings.DEMO_PERSONAS and other_hosts:
            raise ImproperlyConfigured(
                f"ALLOWED_HOSTS has {', '.join(sorted(other_hosts))}, but DEMO_PERSONAS signs in "
                "every visitor without a password. Set DEMO_PERSONAS = False, or allow only the "
                "hosts of this machine."
            )
