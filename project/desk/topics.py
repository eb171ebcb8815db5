"""What can be followed, and by whom."""

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied

from project.desk.models import Order
from realtime import Topic, action, publish, register


@register("orders.<int:pk>")
class OrderTopic(Topic):
    """One order, for its customer and for the staff."""

    pk: int

    def can_subscribe(self, user: Any) -> bool:
        return user.is_staff or Order.objects.filter(pk=self.pk, customer=user).exists()

    @action
    def ask(self, user: Any, data: Any) -> dict[str, Any]:
        """Let the customer ask where the order is; the browser calls this over its connection."""
        if user.is_staff:
            raise PermissionDenied("the desk answers questions, it does not ask them")
        # shown on the page:
        order = Order.objects.get(pk=self.pk, customer=user)
        if order.change(asked=True):
            publish(self, "asked", order.as_data())
        # until here
        return order.as_data()


@register("desk")
class DeskTopic(Topic):
    """What concerns the whole desk, such as an order that nobody could follow before."""

    def can_subscribe(self, user: Any) -> bool:
        return bool(user.is_staff)


class AnnouncementForm(forms.Form):
    """What the admin asks for, in place of JSON."""

    text = forms.CharField(max_length=200, help_text="All visitors of the shop see it.")


@register("shop.news")
class ShopNews(Topic):
    """For everybody, signed in or not; each page shows who else has one open."""

    anonymous = True
    presence = True
    admin_forms = {"announcement": AnnouncementForm}

    def can_subscribe(self, user: Any) -> bool:
        return True

    def member_info(self, user: Any) -> dict[str, str]:
        """Return what every visitor sees of another: nothing that is not for everybody."""
        name = getattr(user, "first_name", "") or "Visitor"
        return {"name": name, "role": "desk" if user.is_staff else "customer"}
