"""Commands: when they are sent, when they are sent again, and which answer belongs to them."""

import asyncio

import pytest

from realtime.client import AnswerLost, CommandRefused, ConnectionEnded
from realtime.client.links import LinkClosed
from realtime.exceptions import DataNotSerializable, InvalidEventName, InvalidTopicName
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play


def test_a_command_waits_up_to_ten_seconds_for_a_connection() -> None:
    server = FakeServer()
    server.failures["websocket"].append(LinkClosed(1006, "away", retry_after=9))

    async def story() -> None:
        async with FakeClient(server) as client:
            await client.publish(TOPIC, "typing", {"by": "Ada"})
            (frame,) = server.sent
            assert (frame["event"], frame["data"]) == ("typing", {"by": "Ada"})
            server.failures["websocket"].append(LinkClosed(1006, "away", retry_after=20))
            server.link.cut(retry_after=0)
            await passing(0.1)
            with pytest.raises(ConnectionEnded, match="the command was not sent"):
                await client.publish(TOPIC, "typing")
        assert len(server.sent) == 1

    play(story())


def test_a_command_whose_answer_was_lost_is_not_sent_again() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            calling = asyncio.create_task(client.call(TOPIC, "rename"))
            await passing(1)
            server.link.cut()
            with pytest.raises(AnswerLost) as caught:
                await calling
            assert (caught.value.command, caught.value.topic) == ("call", TOPIC)
            await passing(60)
        assert len(server.sent) == 1

    play(story())


def test_a_command_that_the_server_was_too_busy_for_is_sent_at_most_five_times() -> None:
    server = FakeServer()
    busy = {"type": "error", "code": "busy", "message": "wait", "retry": True}
    server.answer = lambda f: busy if len(server.sent) < 3 else {"type": "result", "data": 7}

    async def story() -> None:
        async with FakeClient(server) as client:
            assert await client.call(TOPIC, "rename") == 7
            assert len(server.sent) == 3
            server.answer = lambda frame: busy
            with pytest.raises(CommandRefused, match="busy: wait") as caught:
                await client.call(TOPIC, "rename")
            assert caught.value.retry
            assert len(server.sent) == 8

    play(story())


def test_a_command_after_a_closing_frame_waits_for_the_next_connection() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            await passing(1)
            server.link.say({"type": "closing", "reason": "restart", "retry_after": 1})
            await passing(0.1)
            publishing = asyncio.create_task(client.publish(TOPIC, "typing"))
            await passing(0.1)
            assert server.sent == [], "the server would ignore it"
            server.link.cut(4512)
            await publishing
        assert len(server.sent) == 1

    play(story())


def test_a_connection_that_breaks_in_the_turn_in_which_it_opened_delays_a_waiting_command() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            await passing(1)
            link = server.link
            for is_last in (False, True):
                client.down()
                publishing = asyncio.create_task(client.publish(TOPIC, "typing"))
                await asyncio.sleep(0)
                client.up(link)  # the command can go on in the next turn of the loop
                client.down()
                await passing(1)
                assert server.sent == [] if not is_last else len(server.sent) == 1
                assert not publishing.done()
                if is_last:
                    await client.aclose()
                    with pytest.raises(ConnectionEnded):
                        await publishing
                else:
                    client.up(link)
                    await publishing

    play(story())


def test_a_refused_command_is_not_sent_again() -> None:
    server = FakeServer()
    server.answer = lambda frame: {"type": "error", "code": "forbidden", "message": "no"}

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(CommandRefused, match="forbidden: no"):
                await client.publish(TOPIC, "typing")
        assert len(server.sent) == 1

    play(story())


def test_a_too_large_error_without_id_belongs_to_the_largest_command() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            small = asyncio.create_task(client.call(TOPIC, "rename", "x"))
            large = asyncio.create_task(client.call(TOPIC, "rename", "x" * 100_000))
            await passing(1)
            server.link.say({"type": "error", "code": "too_large", "message": "less"})
            with pytest.raises(CommandRefused, match="too_large: less"):
                await large
            server.link.say({"type": "result", "id": server.sent[0]["id"], "data": 1})
            assert await small == 1

    play(story())


def test_a_cancelled_command_is_forgotten() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await client.call(TOPIC, "rename")
            assert client._commands._pending == {}
            server.link.say({"type": "result", "id": server.sent[0]["id"], "data": 1})
            await passing(1)

    play(story())


def test_an_invalid_command_is_not_sent() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(InvalidTopicName):
                await client.publish("or ders", "typing")
            with pytest.raises(InvalidEventName):
                await client.publish(TOPIC, "ty ping")
            with pytest.raises(DataNotSerializable, match=r"data\['at'\]\[1\]"):
                await client.call(TOPIC, "rename", {"at": [1, object()]})
        assert server.sent == []

    play(story())
