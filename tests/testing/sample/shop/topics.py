from typing import Any

from realtime import Topic, action, register
from shop.models import Order


@register("orders.<int:pk>")
class OrderTopic(Topic):
    pk: int
    client_events = {"looking"}
    presence = True

    def can_subscribe(self, user: Any) -> bool:
        return Order.objects.filter(pk=self.pk, customer=user).exists()

    async def can_publish(self, user: Any, event: str) -> bool:
        return await Order.objects.filter(pk=self.pk, customer=user).aexists()

    def member_info(self, user: Any) -> dict[str, Any]:
        return {"name": user.get_username().title()}

    @action
    def state(self, user: Any, data: Any) -> dict[str, Any]:
        order = Order.objects.get(pk=self.pk)
        return {"shipped": order.shipped_at is not None}
