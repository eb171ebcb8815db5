"""The page with its two browsers, and what one can do in each of them."""

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
from project.desk.shown import lines_that_ran
from project.desk.topics import OrderTopic
from realtime import Cursor, publish, user_topic
from realtime.log import heads

ROWS = 12  # of the newest orders; a connection follows at most 100 topics
TEXT = 200  # characters of a notice
WAYS = {
    "websocket": "WebSocket",
    "sse": "Event stream",
    "longpoll": "Long polling",
    "poll": "Polling",
}


def customers_only(request: HttpRequest) -> None:
    """Refuse who is not signed in: with 403, where a redirect would look like success."""
    if not request.user.is_authenticated:
        raise PermissionDenied


def staff_only(request: HttpRequest) -> None:
    """Refuse everybody else."""
    if not request.user.is_staff:
        raise PermissionDenied


# What a customer does


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Place an order, and tell the desk and the customer's own pages."""
    customers_only(request)
    item = next_item(request.user)
    with transaction.atomic():
        # shown on the page:
        order = Order.objects.create(customer=request.user, item=item)
        publish("desk", "placed", order.as_data())
        publish(user_topic(request.user), "placed", order.as_data())
        # until here
    return redirect("front")


# What the desk does


@require_POST
def ship(request: HttpRequest, pk: int) -> HttpResponse:
    """Ship an order, and tell every page that follows it."""
    staff_only(request)
    order = get_object_or_404(Order, pk=pk)
    # shown on the page:
    with transaction.atomic():
        if order.change(state="shipped", asked=False):
            publish(order.topic, "shipped", order.as_data())
    # until here
    return redirect("front")


@require_POST
def reopen(request: HttpRequest, pk: int) -> HttpResponse:
    """Open an order again, so that the demo can go on."""
    staff_only(request)
    order = get_object_or_404(Order, pk=pk)
    # shown on the page:
    with transaction.atomic():
        if order.change(state="open", asked=False):
            publish(order.topic, "reopened", order.as_data())
    # until here
    return redirect("front")


@require_POST
def tell(request: HttpRequest) -> HttpResponse:
    """Tell one customer something; nobody else can follow that topic."""
    staff_only(request)
    data = {"from": request.user.first_name, "text": request.POST.get("text", "")[:TEXT]}
    # shown on the page:
    customer = get_object_or_404(get_user_model(), username=request.POST.get("to"))
    publish(user_topic(customer), "notice", data)
    # until here
    return redirect("front")


@require_POST
def tell_everyone(request: HttpRequest) -> HttpResponse:
    """Tell everybody who is signed in."""
    staff_only(request)
    data = {"from": request.user.first_name, "text": request.POST.get("text", "")[:TEXT]}
    # shown on the page:
    publish("everyone", "notice", data)
    # until here
    return redirect("front")


CODE = {
    "customer": {"place": ("Place an order", place), "ask": ("Ask", OrderTopic.ask)},
    "desk": {
        "ship": ("Ship", ship),
        "reopen": ("Reopen", reopen),
        "tell": ("Tell one", tell),
        "tell-everyone": ("Tell everyone", tell_everyone),
    },
}


# Pages


@never_cache
@require_safe
@xframe_options_sameorigin
def front(request: HttpRequest) -> HttpResponse:
    """Show the page with both browsers; within one of them, what that browser shows."""
    root, _, browser = request.META.get("SCRIPT_NAME", "").rpartition("/")
    if browser not in settings.DEMO_BROWSERS:
        response = render(request, "desk/front.html", {"browsers": settings.DEMO_BROWSERS})
        response.headers["X-Frame-Options"] = "DENY"
        return response
    personas.greet(request, browser)
    topics = ["shop.news"]
    if request.user.is_authenticated:
        topics += ["everyone", str(user_topic(request.user))]
    if request.user.is_staff:
        topics.append("desk")
    transport = request.GET.get("transport")
    context = {
        "transports": WAYS.items(),
        "transport": transport if transport in WAYS else None,
        "home": f"{root}/",
        "browser": browser,
        "personas": personas.PERSONAS[browser],
        "persona": personas.current(request),
        "customers": personas.CUSTOMERS,
        # Before the orders: the cursors are to be older than what the page shows.
        "topics": list(zip(topics, heads(topics), strict=True)),
        "orders": _orders(request),
        "forbidden": Order.objects.order_by("pk").first(),
        "code": [
            (key, title, lines_that_ran(function))
            for key, (title, function) in CODE[browser].items()
        ],
    }
    return render(request, f"desk/{browser}.html", context)


@never_cache
@require_safe
def orders(request: HttpRequest) -> JsonResponse:
    """Answer with the orders as they are: for a page that cannot be told what it missed."""
    found = [order.as_data() | {"cursor": str(cursor)} for order, cursor in _orders(request)]
    return JsonResponse({"orders": found})


@require_POST
def persona(request: HttpRequest) -> HttpResponse:
    """Become somebody else."""
    key = request.POST.get("persona")
    known = {one.key for ones in personas.PERSONAS.values() for one in ones}
    if key not in known or not personas.become(request, key):
        raise Http404("there is no such persona here")
    return redirect("front")


def _orders(request: HttpRequest) -> list[tuple[Order, Cursor]]:
    """Return the newest orders that this user may follow, oldest first, each with a cursor.

    The cursors are taken before the orders are read, so nothing can fall between the two.
    """
    if not request.user.is_authenticated:
        return []
    mine = Order.objects.all()
    if not request.user.is_staff:
        mine = mine.filter(customer=request.user)
    keys = list(mine.order_by("-pk").values_list("pk", flat=True)[:ROWS])
    cursors = dict(zip(keys, heads(f"orders.{pk}" for pk in keys), strict=True))
    found = Order.objects.select_related("customer").filter(pk__in=keys)
    return [(order, cursors[order.pk]) for order in found]
