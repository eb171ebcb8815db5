"""Orders."""

from typing import Any

from django.conf import settings
from django.db import models

MENU = ("Brass gear", "Copper wire", "Star chart", "Fountain pen", "Pocket lens", "Tuning fork")


class Order(models.Model):
    """An order, which is open until the desk ships it."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        SHIPPED = "shipped", "Shipped"

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="orders")
    item = models.CharField(max_length=60)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    asked = models.BooleanField("customer asked", default=False)
    # Counts the changes. A page that shows version 7 ignores version 6 if it arrives later.
    version = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"Order {self.pk}: {self.item}"

    @property
    def topic(self) -> str:
        """The topic that pages with this order follow; topics.py defines who can."""
        return f"orders.{self.pk}"

    def change(self, **values: Any) -> bool:
        """Save new values and return True, or return False if nothing would change."""
        changed = Order.objects.filter(pk=self.pk).exclude(**values)
        if not changed.update(**values, version=models.F("version") + 1):
            return False
        self.refresh_from_db()
        return True

    def as_data(self) -> dict[str, Any]:
        """Return the event data: the values that a page shows."""
        return {
            "order": self.pk,
            "item": self.item,
            "customer": self.customer.get_short_name() or self.customer.get_username(),
            "state": self.state,
            "asked": self.asked,
            "version": self.version,
        }


def next_item(customer: Any) -> str:
    """Return the item of this customer's next order; the items rotate."""
    return MENU[Order.objects.filter(customer=customer).count() % len(MENU)]
