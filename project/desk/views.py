"""The page with the two browsers, and the actions of each browser."""

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_POST, require_safe

from project.desk import personas
from project.desk.models import Order, next_item
from project.desk.source import shown_lines
from project.desk.topics import OrderTopic
from realtime import Cursor, publish, user_topic
from realtime.log import heads

MAX_ORDERS = 12  # the newest ones; a connection can follow at most 100 topics
MAX_TEXT = 200  # characters of a notice
TRANSPORTS = {
    "websocket": "WebSocket",
    "sse": "Event stream",
    "longpoll": "Long polling",
    "poll": "Polling",
}


def require_signed_in(request: HttpRequest) -> None:
    """Answer 403 to anonymous users; the page's JavaScript treats a redirect as success."""
    if not request.user.is_authenticated:
        raise PermissionDenied


def require_staff(request: HttpRequest) -> None:
    """Answer 403 to everyone but the staff."""
    if not request.user.is_staff:
        raise PermissionDenied


# Actions of a customer


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Place an order, and publish it to the desk and to the customer."""
    require_signed_in(request)
    item = next_item(request.user)
    with transaction.atomic():
        # shown on the page:
        order = Order.objects.create(customer=request.user, item=item)
        publish("desk", "placed", order.as_data())
        publish(user_topic(request.user), "placed", order.as_data())
        # until here
    return redirect("front")


# Actions of the desk


@require_POST
def ship(request: HttpRequest, pk: int) -> HttpResponse:
    """Ship an order, and publish that to every page that follows it."""
    require_staff(request)
    order = get_object_or_404(Order, pk=pk)
    # shown on the page:
    with transaction.atomic():
        if order.change(state="shipped", asked=False):
            publish(order.topic, "shipped", order.as_data())
    # until here
    return redirect("front")


@require_POST
def reopen(request: HttpRequest, pk: int) -> HttpResponse:
    """Reopen a shipped order."""
    require_staff(request)
    order = get_object_or_404(Order, pk=pk)
    # shown on the page:
    with transaction.atomic():
        if order.change(state="open", asked=False):
            publish(order.topic, "reopened", order.as_data())
    # until here
    return redirect("front")


@require_POST
def notify(request: HttpRequest) -> HttpResponse:
    """Send a notice to one customer, on a topic that only this customer can follow."""
    require_staff(request)
    data = {"from": request.user.first_name, "text": request.POST.get("text", "")[:MAX_TEXT]}
    # shown on the page:
    customer = get_object_or_404(get_user_model(), username=request.POST.get("to"))
    publish(user_topic(customer), "notice", data)
    # until here
    return redirect("front")


@require_POST
def notify_everyone(request: HttpRequest) -> HttpResponse:
    """Send a notice to every signed-in user."""
    require_staff(request)
    data = {"from": request.user.first_name, "text": request.POST.get("text", "")[:MAX_TEXT]}
    # shown on the page:
    publish("everyone", "notice", data)
    # until here
    return redirect("front")


CODE = {
    "customer": {"place": ("Place an order", place), "ask": ("Ask", OrderTopic.ask)},
    "desk": {
        "ship": ("Ship", ship),
        "reopen": ("Reopen", reopen),
        "notify": ("Notify one", notify),
        "notify-everyone": ("Notify all", notify_everyone),
    },
}


# Pages


@never_cache
@require_safe
@xframe_options_sameorigin
def front(request: HttpRequest) -> HttpResponse:
    """Show the page with both browsers, or below /customer/ and /desk/ the page of one browser."""
    root, _, browser = request.META.get("SCRIPT_NAME", "").rpartition("/")
    if browser not in settings.DEMO_BROWSERS:
        response = render(request, "desk/front.html", {"browsers": settings.DEMO_BROWSERS})
        response.headers["X-Frame-Options"] = "DENY"
        return response
    personas.sign_in_first(request, browser)
    topics = ["shop.news"]
    if request.user.is_authenticated:
        topics += ["everyone", str(user_topic(request.user))]
    if request.user.is_staff:
        topics.append("desk")
    transport = request.GET.get("transport")
    context = {
        "transports": TRANSPORTS.items(),
        "transport": transport if transport in TRANSPORTS else None,
        "home": f"{root}/",
        "browser": browser,
        "personas": personas.PERSONAS[browser],
        "persona": personas.current(request),
        "customers": personas.CUSTOMERS,
        # Read the cursors before the orders, so that no event between the two is missed.
        "topics": list(zip(topics, heads(topics), strict=True)),
        "orders": _orders(request),
        "forbidden": Order.objects.order_by("pk").first(),
        "code": [
            (key, title, shown_lines(function)) for key, (title, function) in CODE[browser].items()
        ],
    }
    return render(request, f"desk/{browser}.html", context)


@never_cache
@require_safe
def orders(request: HttpRequest) -> JsonResponse:
    """Return the current orders, for a page whose missed events are no longer stored."""
    data = [order.as_data() | {"cursor": str(cursor)} for order, cursor in _orders(request)]
    return JsonResponse({"orders": data})


@require_POST
def persona(request: HttpRequest) -> HttpResponse:
    """Switch this browser to another persona."""
    key = request.POST.get("persona")
    known = {each.key for group in personas.PERSONAS.values() for each in group}
    if key not in known or not personas.switch(request, key):
        raise Http404("this persona does not exist")
    return redirect("front")


def _orders(request: HttpRequest) -> list[tuple[Order, Cursor]]:
    """Return the newest orders that this user can follow, oldest first, each with a cursor.

    The cursors are read before the orders, so that no event between the two is missed.
    """
    if not request.user.is_authenticated:
        return []
    allowed = Order.objects.all()
    if not request.user.is_staff:
        allowed = allowed.filter(customer=request.user)
    keys = list(allowed.order_by("-pk").values_list("pk", flat=True)[:MAX_ORDERS])
    cursors = dict(zip(keys, heads(f"orders.{pk}" for pk in keys), strict=True))
    newest = Order.objects.select_related("customer").filter(pk__in=keys)
    return [(order, cursors[order.pk]) for order in newest]
