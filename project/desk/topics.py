"""The topics of the demo, and who can follow them."""

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied

from project.desk.models import Order
from realtime import Topic, action, publish, register


@register("orders.<int:pk>")
class OrderTopic(Topic):
    """One order; its customer and the staff can follow it."""

    pk: int

    def can_subscribe(self, user: Any) -> bool:
        return user.is_staff or Order.objects.filter(pk=self.pk, customer=user).exists()

    @action
    def ask(self, user: Any, data: Any) -> dict[str, Any]:
        """Record that the customer asks for news; the browser calls this over its connection."""
        if user.is_staff:
            raise PermissionDenied("only the customer can ask about an order")
        # shown on the page:
        order = Order.objects.get(pk=self.pk, customer=user)
        if order.change(asked=True):
            publish(self, "asked", order.as_data())
        # until here
        return order.as_data()


@register("desk")
class DeskTopic(Topic):
    """News for the whole desk, such as new orders: no page follows their own topics yet."""

    def can_subscribe(self, user: Any) -> bool:
        return bool(user.is_staff)


class AnnouncementForm(forms.Form):
    """The form that the admin shows for an announcement, instead of a field for JSON."""

    text = forms.CharField(max_length=200, help_text="All visitors of the shop see this text.")


@register("shop.news")
class ShopNews(Topic):
    """Shop news for everyone, signed in or not; the pages show who else follows it."""

    anonymous = True
    presence = True
    admin_forms = {"announcement": AnnouncementForm}

    def can_subscribe(self, user: Any) -> bool:
        return True

    def member_info(self, user: Any) -> dict[str, str]:
        """Return the public information that other visitors see."""
        name = getattr(user, "first_name", "") or "Visitor"
        return {"name": name, "role": "desk" if user.is_staff else "customer"}
