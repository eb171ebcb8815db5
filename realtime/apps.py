"""The Django app."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    """Finds every app's topics and registers the system checks when Django is ready."""

    name = "realtime"
    verbose_name = "Realtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        import_module("realtime.checks")
        from realtime.topics import autodiscover

        autodiscover()
