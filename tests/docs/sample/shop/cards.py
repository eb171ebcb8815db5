from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404, render

from realtime.log import since
from shop.models import Order
from shop.topics import OrderTopic


def order_and_cursor(request, pk):
    topic = OrderTopic(pk=pk)
    cursor = since(topic)  # before the order is read
    order = get_object_or_404(Order, pk=pk, customer=request.user)
    return {"topic": topic, "cursor": cursor, "order": order}


@login_required
def page(request, pk):
    return render(request, "shop/order.html", order_and_cursor(request, pk))


@login_required
def card(request, pk):
    return render(request, "shop/card.html", order_and_cursor(request, pk))
