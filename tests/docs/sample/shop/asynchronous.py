from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpResponse

from realtime import apublish, publish
from shop.models import Order
from shop.topics import OrderTopic


async def remind(request, pk):
    await apublish(OrderTopic(pk=pk), "reminded")
    return HttpResponse(status=204)


@sync_to_async
def ship(pk):
    with transaction.atomic():
        Order.objects.filter(pk=pk).update(state="shipped")
        publish(OrderTopic(pk=pk), "shipped")
