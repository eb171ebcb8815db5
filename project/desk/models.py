"""Orders."""

from typing import Any

from django.db import models

from project.desk.topics import OrderTopic


class Order(models.Model):
    """An order that is open until somebody ships it."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        SHIPPED = "shipped", "Shipped"

    customer = models.CharField(max_length=60)
    item = models.CharField(max_length=60)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    # Counts the changes: a page that knows version 7 leaves version 6 alone, however it learns it.
    version = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"Order {self.pk}: {self.item} for {self.customer}"

    @property
    def topic(self) -> OrderTopic:
        """What the pages that show this order follow."""
        return OrderTopic(pk=self.pk)

    def set_state(self, state: str) -> bool:
        """Save another state and return True; False if the order has it already."""
        changed = Order.objects.filter(pk=self.pk).exclude(state=state)
        if not changed.update(state=state, version=models.F("version") + 1):
            return False
        self.refresh_from_db()
        return True

    def as_data(self) -> dict[str, Any]:
        """Return what a page shows of this order, as JSON has it."""
        return {"order": self.pk, "state": self.state, "version": self.version}
