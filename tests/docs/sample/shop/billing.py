from django.db import transaction

from realtime import publish
from shop.models import Payment
from shop.topics import OrderTopic


def pay(pk):
    with transaction.atomic(using="billing"):
        Payment.objects.using("billing").create(order=pk)
        publish(OrderTopic(pk=pk), "paid", using="billing")
