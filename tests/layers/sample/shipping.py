"""Synchronous code as docs/channel-layer.md quotes it."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction


@transaction.atomic
def ship(order):
    order.state = "shipped"
    order.save()
    async_to_sync(get_channel_layer().group_send)(
        "chat", {"type": "said", "text": f"{order} is shipped"}
    )
