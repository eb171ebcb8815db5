"""The Django app."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps
from django.apps.registry import Apps
from django.db import router
from django.db.models.signals import post_migrate

from realtime.import_name import check_files

check_files()  # Django imports this module before all others of the app


class RealtimeConfig(AppConfig):
    """Discovers the topics of all apps and registers the system checks when Django is ready."""

    name = "realtime"
    verbose_name = "Realtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the system checks and the topics, and connect the signals."""
        import_module("realtime.checks")
        from realtime import request_time
        from realtime.topics import autodiscover

        autodiscover()
        request_time.connect()
        post_migrate.connect(_make_store_id, sender=self, dispatch_uid="realtime.store_id")


def _make_store_id(*, using: str, apps: Apps = apps, **_: Any) -> None:
    """Write the row with the store id, after ``migrate`` and after ``flush``.

    A migration cannot do it: migrations do not run again when a database is emptied.
    """
    from realtime.stores.database.tables import Tables

    try:
        log = apps.get_model("realtime", "Log")
    except LookupError:
        return  # the app's migrations were reversed
    if router.allow_migrate_model(using, log):
        Tables(using).new_state("")  # creates the store id
