"""A ModelAdmin that publishes."""

from typing import Any

from django.contrib import admin

from realtime.admin import PublishAdminMixin
from tests.testapp.models import Note


@admin.register(Note)
class NoteAdmin(PublishAdminMixin, admin.ModelAdmin):
    """What a note says is published to the topic of its body; without one there is none."""

    def get_publication(self, obj: Note) -> Any:
        return (obj.body, "noted", {"text": obj.text}) if obj.body else None
