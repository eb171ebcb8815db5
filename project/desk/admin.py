"""Orders in the admin: a change that is saved here is published like any other."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from project.desk.models import Order
from realtime import publish


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["pk", "item", "customer", "state"]
    list_display_links = ["pk", "item"]
    list_filter = ["state"]

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        """Save, and publish in the transaction that the admin has opened."""
        if "state" in form.changed_data:
            obj.version += 1  # nobody else writes between: SQLite's transaction is IMMEDIATE
        super().save_model(request, obj, form, change)
        if change and "state" in form.changed_data:
            name = "shipped" if obj.state == Order.State.SHIPPED else "reopened"
            publish(obj.topic, name, obj.as_data())
