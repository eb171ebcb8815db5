from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from realtime import publish, user_topic
from shop.models import Order
from shop.topics import OrderTopic


def ship(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=pk)
        publish(user_topic(order.customer), "on-its-way", {"order": pk})
        if order.shipped_at is not None:
            transaction.set_rollback(True)
            return HttpResponse("shipped already", status=409)
        order.shipped_at = timezone.now()
        order.save()
        publish(OrderTopic(pk=pk), "shipped", {"at": order.shipped_at})
    return HttpResponse("ok")
