from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import aget_object_or_404

from realtime import apublish, publish
from shop.models import Order
from shop.topics import OrderTopic


@login_required
async def remind(request, pk):
    order = await aget_object_or_404(Order, pk=pk, customer=await request.auser())
    await apublish(OrderTopic(pk=order.pk), "reminded")
    return HttpResponse(status=204)


@sync_to_async
def ship(pk):
    with transaction.atomic():
        if Order.objects.filter(pk=pk).update(state="shipped"):
            publish(OrderTopic(pk=pk), "shipped")
