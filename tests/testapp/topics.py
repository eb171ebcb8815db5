"""The topics that the tests follow and publish to."""

import asyncio
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime import Topic, action, apublish, register
from tests.testapp.models import Note


@register("orders.<int:pk>")
class OrderTopic(Topic):
    """Every signed-in user may follow and publish."""

    pk: int
    client_events = {"typing"}
    stored_client_events = {"comment"}

    def can_subscribe(self, user: Any) -> bool:
        return bool(user.is_authenticated)

    def can_publish(self, user: Any, event: str) -> bool:
        return bool(user.is_authenticated)

    @action
    def rename(self, user: Any, data: Any) -> dict[str, Any]:
        """Return what a view would have saved."""
        return {"pk": self.pk, "name": data, "by": user.get_username()}

    @action
    def boom(self, user: Any, data: Any) -> None:
        """Fail in the way that the data says."""
        match data:
            case "denied":
                raise PermissionDenied("not yours")
            case "invalid":
                raise ValidationError("not a name")
            case "invalid translated":
                raise ValidationError([_("This field is required."), gettext("Monday")])
            case "invalid long":
                raise ValidationError("é" * 100_000)
            case "invalid fields":
                raise ValidationError({"name": ["too long", "too loud"]})
            case _:
                raise RuntimeError("a fault of the project, which no client may read")

    @action
    async def echo(self, user: Any, data: Any) -> Any:
        """Return the data, on the event loop."""
        await asyncio.sleep(0)
        return data

    @action
    async def hang(self, user: Any, data: Any) -> None:
        """Publish an event, then never return."""
        await apublish(self, "hanging", ephemeral=True)
        await asyncio.Event().wait()

    def not_an_action(self, user: Any, data: Any) -> None:
        raise AssertionError("a client called a method without @action")


@register("public.<slug:name>")
class PublicTopic(Topic):
    """Everyone may follow, signed in or not."""

    name: str
    anonymous = True

    async def can_subscribe(self, user: Any) -> bool:
        return True


@register("private.<int:pk>")
class PrivateTopic(Topic):
    """Nobody may follow."""

    pk: int

    def can_subscribe(self, user: Any) -> bool:
        return False


@register("tiny.<slug:name>")
class TinyTopic(PublicTopic):
    """Its log keeps five events."""

    max_events = 5


@register("long.<slug:name>")
class LongTopic(PublicTopic):
    """Its log keeps more events than a slow client can fall behind."""

    max_events = 10_000


@register("crash.<int:pk>")
class CrashTopic(Topic):
    """Its permission checks fail."""

    pk: int
    client_events = {"typing"}

    def can_subscribe(self, user: Any) -> bool:
        raise RuntimeError("the authoriser is broken")

    async def can_publish(self, user: Any, event: str) -> bool:
        raise RuntimeError("the authoriser is broken")


@register("recent.<slug:name>")
class RecentTopic(PublicTopic):
    """Subscribers can resume, but cannot read older events."""

    history = False


class AnnouncementForm(forms.Form):
    """The admin's form for an announcement."""

    class Media:
        js = ["admin/js/core.js"]  # like a widget with a script of its own

    title = forms.CharField(max_length=40, help_text="Shown in bold.")
    urgent = forms.BooleanField(required=False)
    until = forms.DateField(required=False)
    note = forms.ModelChoiceField(Note.objects.all(), required=False)


@register("announcements.<slug:name>")
class AnnouncementTopic(PublicTopic):
    """It has an admin form for one of its events."""

    admin_forms = {"announced": AnnouncementForm}


@register("room.<slug:name>")
class RoomTopic(PublicTopic):
    """It has presence."""

    presence = True

    async def member_info(self, user: Any) -> dict[str, Any]:
        if getattr(user, "username", "") == "crash":
            raise RuntimeError("the project's fault")
        return {"name": getattr(user, "username", "")}
