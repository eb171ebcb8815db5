from django.db import transaction

from realtime import publish_many
from shop.models import Order
from shop.topics import OrderTopic


@transaction.atomic
def close_orders():
    keys = list(Order.objects.filter(state="open").values_list("pk", flat=True))
    Order.objects.filter(pk__in=keys).update(state="closed")
    publish_many((OrderTopic(pk=pk), "closed", None) for pk in keys)
    return len(keys)
