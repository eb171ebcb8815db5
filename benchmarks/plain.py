"""The part of the benchmark site that uses plain Channels: consumers that join a group."""

import json
from typing import Any, ClassVar

from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from benchmarks.publishers import GROUP


class PlainConsumer(AsyncJsonWebsocketConsumer):
    """Sends the messages of its group to the client."""

    groups: ClassVar[list[str]] = ["plain"]

    async def deliver(self, message: dict[str, Any]) -> None:
        await self.send_json({"type": "event", "data": message["data"]})


class FanoutConsumer(PlainConsumer):
    groups: ClassVar[list[str]] = [GROUP]


class SignedConsumer(FanoutConsumer):
    """Accepts only signed-in users, and greets them."""

    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            await self.close()
            return
        await self.accept()
        await self.send_json({"type": "hello"})


class StreamConsumer(AsyncHttpConsumer):
    """An event stream."""

    async def handle(self, body: bytes) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        await self.send_body(b": hello\n\n", more_body=True)

    async def http_request(self, message: dict[str, Any]) -> None:
        # The inherited method ends the request as soon as handle() has returned.
        await self.handle(b"")

    async def disconnect(self) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def deliver(self, message: dict[str, Any]) -> None:
        text = json.dumps({"type": "event", "data": message["data"]})
        await self.send_body(f"data: {text}\n\n".encode(), more_body=True)


class SignedStreamConsumer(StreamConsumer):
    """An event stream for signed-in users only."""

    async def handle(self, body: bytes) -> None:
        if self.scope["user"].is_authenticated:
            await super().handle(body)
        else:
            await self.send_response(403, b"")


def post(request: HttpRequest) -> HttpResponse:
    """Send the posted data to the group."""
    message = {"type": "deliver", "data": json.loads(request.body)}
    async_to_sync(get_channel_layer().group_send)(GROUP, message)
    return HttpResponse()


websockets: list[URLPattern] = [
    path("plain/", PlainConsumer.as_asgi()),
    path("plain/fanout/", FanoutConsumer.as_asgi()),
    path("plain/signed/", AuthMiddlewareStack(SignedConsumer.as_asgi())),
]
streams: list[URLPattern] = [
    path("plain/stream/", StreamConsumer.as_asgi()),
    path("plain/signed-stream/", AuthMiddlewareStack(SignedStreamConsumer.as_asgi())),
]
