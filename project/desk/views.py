"""The desk's page, and the two things that one can do there."""

import inspect
from pathlib import Path

from django.contrib.staticfiles import finders
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from project.desk.models import Order
from realtime import publish
from realtime.log import heads


@require_POST
def ship(request: HttpRequest, pk: int) -> HttpResponse:
    """Ship an order, and tell every page that follows it."""
    with transaction.atomic():
        order = get_object_or_404(Order, pk=pk)
        if order.set_state("shipped"):
            publish(order.topic, "shipped", order.as_data())  # goes out after the commit
    return redirect("desk")


@require_POST
def reopen(request: HttpRequest, pk: int) -> HttpResponse:
    """Open an order again, so that the demo can go on."""
    with transaction.atomic():
        order = get_object_or_404(Order, pk=pk)
        if order.set_state("open"):
            publish(order.topic, "reopened", order.as_data())
    return redirect("desk")


@never_cache
@require_safe
def desk(request: HttpRequest) -> HttpResponse:
    """Show the orders, each with the cursor from which the page follows it."""
    # The cursors are older than what the page shows, so nothing can fall between the two.
    keys = list(Order.objects.values_list("pk", flat=True))
    cursors = dict(zip(keys, heads(f"orders.{pk}" for pk in keys), strict=True))
    context = {
        "orders": [(order, cursors.get(order.pk)) for order in Order.objects.all()],
        "view_source": inspect.getsource(ship),
        "script_source": Path(finders.find("desk/follow.js")).read_text(),
    }
    return render(request, "desk/desk.html", context)


@never_cache
@require_safe
def orders(request: HttpRequest) -> JsonResponse:
    """Answer with the state of all orders: for a page that cannot be told what it missed."""
    return JsonResponse({"orders": [order.as_data() for order in Order.objects.all()]})
