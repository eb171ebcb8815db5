"""The application that runworker runs, as docs/channel-layer.md quotes it."""

import django

django.setup()

from channels.routing import ChannelNameRouter, ProtocolTypeRouter  # noqa: E402

from tests.layers.sample.consumers import Thumbnails  # noqa: E402

application = ProtocolTypeRouter(
    {"channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi()})}
)
