"""Consumers as docs/channel-layer.md quotes them."""

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("chat", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("chat", self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("chat", {"type": "said", "text": text_data})

    async def said(self, message):
        await self.send(message["text"])


class Thumbnails(SyncConsumer):
    def generate(self, message):
        answer = {"type": "done", "number": message["number"] * 2}
        async_to_sync(get_channel_layer().send)(message["reply_to"], answer)
