from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from realtime import publish
from shop.models import Order
from shop.topics import OrderTopic


@login_required
@require_POST
def rename(request, pk):
    order = get_object_or_404(Order, pk=pk, customer=request.user)
    with transaction.atomic():
        order.title = request.POST["title"]
        order.save()
        publish(OrderTopic(pk=pk), "renamed", {"title": order.title}, exclude=request)
    return HttpResponse(status=204)
