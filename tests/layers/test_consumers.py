"""A project's own consumers over the database layer, as Channels documents them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.generic.websocket import WebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.db import connections, transaction

from realtime.layers import DatabaseChannelLayer
from tests.layers.conftest import Database
from tests.layers.contract import MakeLayer, next_is
from tests.layers.sample.consumers import Chat
from tests.layers.sample.settings import CHANNEL_LAYERS
from tests.layers.sample.shipping import ship
from tests.support.waiting import SCALE


@pytest.fixture
async def layer(database: Database, settings: Any) -> AsyncIterator[DatabaseChannelLayer]:
    """The project's default layer, over each database."""
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "realtime.layers.DatabaseChannelLayer",
            "CONFIG": {"using": database.alias},
        }
    }
    layer = get_channel_layer()
    yield layer
    await layer.close()


class SyncChat(WebsocketConsumer):
    groups = ["chat"]

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        async_to_sync(self.channel_layer.group_send)("chat", {"type": "said", "text": text_data})

    def said(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


@pytest.mark.parametrize("consumer", [Chat, SyncChat])
async def test_websocket_consumers_get_messages_of_this_and_other_processes(
    layer: DatabaseChannelLayer, make_layer: MakeLayer, consumer: Any
) -> None:
    clients = [WebsocketCommunicator(consumer.as_asgi(), "/") for _ in range(2)]
    for client in clients:
        assert (await client.connect(timeout=10))[0]
    await clients[0].send_to(text_data="hello")
    for client in clients:
        assert await client.receive_from(timeout=10) == "hello"
    await make_layer().group_send("chat", {"type": "said", "text": "from afar"})
    for client in clients:
        assert await client.receive_from(timeout=10) == "from afar"
        await client.disconnect(timeout=10)
    assert layer._local.members() == []


async def test_a_websocket_consumer_gets_a_views_message_after_the_commit(
    layer: DatabaseChannelLayer, database: Database
) -> None:
    class Rollback(Exception):
        pass

    def view() -> None:
        send = async_to_sync(get_channel_layer().group_send)
        with pytest.raises(Rollback), transaction.atomic(using=database.alias):
            send("chat", {"type": "said", "text": "rolled back"})
            raise Rollback
        with transaction.atomic(using=database.alias):
            send("chat", {"type": "said", "text": "committed"})
        connections[database.alias].close()
        del connections[database.alias]  # the next test has another database of this name

    client = WebsocketCommunicator(Chat.as_asgi(), "/")
    assert (await client.connect(timeout=10))[0]
    await sync_to_async(view)()
    assert await client.receive_from(timeout=10) == "committed"
    await client.disconnect(timeout=10)


@pytest.mark.django_db(transaction=True)
async def test_the_documented_function_sends_after_the_commit(settings: Any) -> None:
    class Order:
        def __str__(self) -> str:
            return "Order 42"

        def save(self) -> None:
            assert transaction.get_connection().in_atomic_block

    settings.CHANNEL_LAYERS = CHANNEL_LAYERS
    client = WebsocketCommunicator(Chat.as_asgi(), "/")
    assert (await client.connect(timeout=10))[0]
    await sync_to_async(ship)(Order())
    assert await client.receive_from(timeout=10) == "Order 42 is shipped"
    await client.disconnect(timeout=10)
    await get_channel_layer().close()


async def test_a_sync_consumer_under_runworker_answers(
    make_layer: MakeLayer, database: Database
) -> None:
    layer = make_layer()
    answers = await layer.new_channel()
    # A message that is sent before the worker starts waits for it.
    await layer.send("thumbnails", {"type": "generate", "number": 0, "reply_to": answers})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "django", "runworker", "thumbnails"),
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "tests.layers.sample.settings",
            "REALTIME_TEST_DB": database.url,
        },
    )
    try:
        async with asyncio.timeout(30 * SCALE):
            assert await layer.receive(answers) == {"type": "done", "number": 0}
        for number in range(1, 5):
            message = {"type": "generate", "number": number, "reply_to": answers}
            await layer.send("thumbnails", message)
            await next_is(layer, answers, number * 2)
    finally:
        process.kill()
        await process.wait()
