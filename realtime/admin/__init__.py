"""Admin pages that publish and show events, and an action for any ``ModelAdmin``.

Only ``django.contrib.admin`` imports this package, so a project can do without the admin.
"""

from django.apps import apps
from django.contrib import admin

from realtime.admin.actions import PublishAdminMixin
from realtime.admin.events import EventAdmin

__all__ = ["EventAdmin", "PublishAdminMixin"]

admin.site.register(apps.get_model("realtime", "LogEvent"), EventAdmin)
