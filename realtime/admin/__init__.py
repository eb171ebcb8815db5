"""Publishing from the admin: a page of its own, and an action for any ``ModelAdmin``.

Imported by ``django.contrib.admin`` alone, so that projects without it do not need it.
"""

from django.apps import apps
from django.contrib import admin

from realtime.admin.actions import PublishAdminMixin
from realtime.admin.events import EventAdmin

__all__ = ["EventAdmin", "PublishAdminMixin"]

admin.site.register(apps.get_model("realtime", "LogEvent"), EventAdmin)
