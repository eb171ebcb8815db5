"""A ModelAdmin that publishes."""

from typing import Any

from django.contrib import admin

from realtime.admin import PublishAdminMixin
from tests.testapp.models import Note


@admin.register(Note)
class NoteAdmin(PublishAdminMixin, admin.ModelAdmin):
    """Publishes a note's text to the topic named in its body; nothing without a body."""

    def get_publication(self, obj: Note) -> Any:
        return (obj.body, "noted", {"text": obj.text}) if obj.body else None
