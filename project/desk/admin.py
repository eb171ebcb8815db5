"""Orders in the admin, which publishes saved changes as the views do."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from project.desk.models import Order
from realtime import publish, user_topic
from realtime.admin import PublishAdminMixin


@admin.register(Order)
class OrderAdmin(PublishAdminMixin, admin.ModelAdmin):
    list_display = ["pk", "item", "customer", "state", "asked"]
    list_display_links = ["pk", "item"]
    list_filter = ["state"]

    def get_publication(self, obj: Order) -> tuple[str, str, Any]:
        """Return the event that the action "Publish selected orders" publishes."""
        return obj.topic, "changed", obj.as_data()

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        """Save the order, and publish the change in the admin's transaction."""
        if change:
            obj.version += 1  # safe: the transaction is IMMEDIATE, so no other process can write
        super().save_model(request, obj, form, change)
        if not change:
            publish("desk", "placed", obj.as_data())
            publish(user_topic(obj.customer), "placed", obj.as_data())
        elif "state" in form.changed_data:
            name = "shipped" if obj.state == Order.State.SHIPPED else "reopened"
            publish(obj.topic, name, obj.as_data())
        elif form.changed_data:
            publish(obj.topic, "changed", obj.as_data())
