"""Subscriptions: the reader receives every event once and in order, whatever the connection does.

Covers topic.py and subscription.py; the member list is in test_members.py.
"""

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.client import CommandRefused, EventsLost
from realtime.exceptions import InvalidCursor, InvalidTopicName
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play, take

OTHER = "public.news"


def kinds(server: FakeServer, topic: str = TOPIC) -> list[str]:
    return [frame["type"] for frame in server.sent if frame["topic"] == topic]


def test_events_arrive_with_all_their_attributes() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            async with client.subscribe(TOPIC) as events:
                assert str(events.cursor) == "e.0.00000000"
                server.publish()
                event = await anext(events)
                assert (event.topic, event.name, event.data, event.seq) == (TOPIC, "tick", 1, 1)
                assert events.cursor == event.cursor == server.cursor(TOPIC)
            assert (client.user_id, client.topics, client.transport) == (
                "7",
                ["user.7"],
                "websocket",
            )

    play(story())


def test_a_subscription_starts_at_since_or_last() -> None:
    server = FakeServer()
    server.publish(count=5)

    async def story() -> None:
        async with FakeClient(server) as client:
            async with client.subscribe(TOPIC, last=2) as events:
                assert await take(events, 2) == [4, 5]
            async with client.subscribe(TOPIC, since=server.cursor(TOPIC, 1)) as events:
                assert await take(events, 4) == [2, 3, 4, 5]
            async with client.subscribe(TOPIC, since=str(server.cursor(TOPIC, 3))) as events:
                assert await take(events, 2) == [4, 5]
            both = compose([entry(OTHER, Cursor("x", 9, 9)), entry(TOPIC, server.cursor(TOPIC, 4))])
            async with client.subscribe(TOPIC, since=both) as events:
                assert await take(events, 1) == [5]
            with pytest.raises(InvalidCursor, match="does not contain"):
                client.subscribe("orders.43", since=both)
            async with client.subscribe(TOPIC) as events:
                server.publish()
                assert await take(events, 1) == [6]

    play(story())


step = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 8)),
    st.tuples(st.just("cut"), st.sampled_from([1000, 1001, 1006, 1011, 4500, 4512, 4513])),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.005, 0.011, 0.02, 0.5, 3.0])),
    st.tuples(st.just("read"), st.integers(1, 8)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=40), st.integers(1, 6))
def test_every_event_arrives_once_and_in_order_wherever_the_connection_breaks(
    steps: list[tuple[str, Any]], max_queue: int
) -> None:
    server = FakeServer()

    async def story() -> list[int]:
        received: list[int] = []
        async with (
            FakeClient(server) as client,
            client.subscribe(TOPIC, max_queue=max_queue) as events,
        ):
            for what, value in steps:
                match what:
                    case "publish":
                        server.publish(count=value)
                    case "cut":
                        server.link.cut(value)
                    case "wait":
                        await passing(value)
                    case "read":
                        for _ in range(min(value, len(server.logs[TOPIC]) - len(received))):
                            received += await take(events, 1)
                assert len(events._shared._items) <= max_queue
            return received + await take(events, len(server.logs[TOPIC]) - len(received))

    assert play(story()) == list(range(1, len(server.logs[TOPIC]) + 1))


def test_a_slow_reader_delays_no_other_topic_or_command_and_loses_no_event() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            slow = client.subscribe(TOPIC, max_queue=10)
            async with client.subscribe(OTHER) as quick:
                server.publish(count=1_000)
                server.publish(OTHER)
                assert await take(quick, 1) == [1]
                await client.publish(OTHER, "typing")
                assert len(slow._shared._items) == 10
                assert kinds(server) == ["subscribe", "unsubscribe"]
                assert await take(slow, 1_000) == list(range(1, 1_001))

    play(story())


def test_a_slow_reader_gets_events_lost_when_its_events_were_trimmed() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC, max_queue=4) as events:
            server.publish(count=100)
            await passing(1)
            server.trim()
            assert await take(events, 4) == [1, 2, 3, 4]
            with pytest.raises(EventsLost) as caught:
                await anext(events)
            assert caught.value.cursor == events.cursor == server.cursor(TOPIC, 100)
            server.publish()
            assert await take(events, 1) == [101], (
                "the iteration continues after the missing events"
            )

    play(story())


def test_a_paused_topic_stays_paused_across_a_reconnect() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC, max_queue=2) as events:
            server.publish(count=5)
            await passing(1)
            server.link.cut()
            await passing(60)
            assert kinds(server) == ["subscribe", "unsubscribe"]
            assert await take(events, 5) == [1, 2, 3, 4, 5]

    play(story())


def test_an_ephemeral_event_is_delivered_or_dropped_but_never_pauses_the_topic() -> None:
    server = FakeServer()
    typing = {"type": "event", "topic": TOPIC, "event": "typing", "data": None}

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC, max_queue=1) as events:
            server.link.say(typing)
            event = await anext(events)
            assert (event.name, event.cursor, event.seq) == ("typing", None, None)
            assert events.cursor == server.cursor(TOPIC, 0)
            server.publish()
            server.link.say(typing)
            await passing(1)
            assert await take(events, 1) == [1]
            assert "unsubscribe" not in kinds(server)
            server.publish()
            assert await take(events, 1) == [2]

    play(story())


# Missing events


def test_a_trimmed_cursor_raises_once_and_the_iteration_continues() -> None:
    server = FakeServer()
    server.publish(count=9)
    server.trim()

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, since=server.cursor(TOPIC, 1))
            with pytest.raises(EventsLost, match="fetch its state again") as caught:
                await anext(events)
            assert (caught.value.topic, caught.value.cursor) == (TOPIC, server.cursor(TOPIC))
            server.publish()
            assert await take(events, 1) == [10]

    play(story())


def test_a_reset_keeps_its_position_among_the_events_and_two_in_a_row_are_one() -> None:
    server = FakeServer()
    seen: list[Any] = []

    async def reset(error: EventsLost) -> None:
        await passing(0.1)
        seen.append(error.reason)

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC, on_reset=reset) as events:
            server.publish()
            for epoch in ("f", "g"):
                server.epoch = epoch
                cursor = str(server.cursor(TOPIC))
                frame = {"type": "reset", "topic": TOPIC, "cursor": cursor}
                server.link.say({**frame, "reason": "restarted"})
            server.publish()
            await passing(1)
            seen.append((await anext(events)).data)
            seen.append((await anext(events)).data)

    play(story())
    assert seen == [1, "restarted", 2]


def test_on_reset_is_called_again_if_it_failed() -> None:
    server = FakeServer()
    server.publish(count=9)
    server.trim()
    calls: list[EventsLost] = []

    def reset(error: EventsLost) -> None:
        calls.append(error)
        if len(calls) == 1:
            raise OSError("the database is down")

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC, since=server.cursor(TOPIC, 1), on_reset=reset)
            with pytest.raises(OSError, match="down"):
                await anext(events)
            server.publish()
            assert await take(events, 1) == [10]

    play(story())
    assert len(calls) == 2


def test_a_duplicate_event_is_dropped_without_subscribing_again() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            server.publish(count=2)
            server.link.say({**server.logs[TOPIC][0], "cursor": str(server.cursor(TOPIC, 1))})
            server.publish()
            assert await take(events, 3) == [1, 2, 3]
            await passing(1)
            assert kinds(server) == ["subscribe"]

    play(story())


def test_a_missing_event_is_fetched_and_a_duplicate_is_dropped() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            server.publish()
            first = server.logs[TOPIC][0]
            server.link.say({**first, "cursor": str(server.cursor(TOPIC, 1))})
            server.logs[TOPIC].append({**first, "data": 2, "seq": 2})  # appended, but not delivered
            server.publish()
            assert await take(events, 3) == [1, 2, 3]
            assert kinds(server) == ["subscribe", "unsubscribe", "subscribe"]

    play(story())


# Refusals


def test_a_refused_topic_raises_and_can_be_subscribed_again() -> None:
    server = FakeServer()
    server.refusals[TOPIC].append({"code": "forbidden", "message": "no", "retry": False})

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(CommandRefused, match=r"forbidden: orders\.42: no"):
                await anext(client.subscribe(TOPIC))
            async with client.subscribe(TOPIC) as events:
                server.publish()
                assert await take(events, 1) == [1]

    play(story())


def test_entering_a_refused_subscription_raises() -> None:
    server = FakeServer()
    server.refusals[TOPIC].append({"code": "forbidden", "message": "no", "retry": False})

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(CommandRefused):
                async with client.subscribe(TOPIC):
                    raise AssertionError("it was entered")

    play(story())


def test_a_subscribe_that_was_refused_temporarily_is_retried() -> None:
    server = FakeServer()
    unavailable = {"code": "unavailable", "message": "later", "retry": True}
    server.refusals[TOPIC].extend([unavailable, unavailable])

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            server.publish()
            assert await take(events, 1) == [1]

    play(story())
    assert kinds(server) == ["subscribe"] * 3


def test_a_withdrawn_topic_ends_after_the_events_that_arrived_before() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            server.publish()
            server.link.say({"type": "unsubscribed", "topic": TOPIC, "reason": "forbidden"})
            await passing(1)
            assert await take(events, 1) == [1]
            for _ in range(2):
                with pytest.raises(CommandRefused, match="the server ended the subscription"):
                    await anext(events)

    play(story())


# Unsubscribing


def test_the_client_unsubscribes_at_the_end_of_the_block_and_on_garbage_collection() -> None:
    server = FakeServer()
    server.publish(count=3)

    async def story() -> None:
        async with FakeClient(server) as client:
            async with client.subscribe(TOPIC) as events:
                with pytest.raises(CommandRefused, match="already_subscribed"):
                    client.subscribe(TOPIC)
                server.publish()
                await passing(1)
            assert [event async for event in events] == [], (
                "it has ended, and unread events were discarded"
            )
            for _ in range(3):
                async for event in client.subscribe(TOPIC, last=3):
                    assert event.data == 2
                    break
            gc.collect()
            await passing(1)
            assert kinds(server) == ["subscribe", "unsubscribe"] * 4

    play(story())


def test_a_timeout_around_an_iteration_loses_no_event() -> None:
    server = FakeServer()

    async def story() -> list[int]:
        received = []
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            for number in range(200):
                if number % 3 == 0:
                    server.publish()
                try:
                    async with asyncio.timeout(0.0037 * (number % 5)):
                        received += await take(events, 1)
                except TimeoutError:
                    pass
            return received + await take(events, len(server.logs[TOPIC]) - len(received))

    assert play(story()) == list(range(1, 68))


def test_iterations_end_when_the_client_is_closed() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            events = client.subscribe(TOPIC)

            async def read() -> list[Any]:
                return [event async for event in events]

            reading = asyncio.create_task(read())
            await passing(1)
            await client.aclose()
            assert await reading == []

    play(story())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"topic": "or ders"}, InvalidTopicName, "not a valid topic name"),
        ({"since": "yesterday"}, InvalidCursor, "not a cursor"),
        ({"since": "@1", "last": 1}, ValueError, "not both"),
        ({"last": -1}, ValueError, "last at least 0"),
        ({"max_queue": 0}, ValueError, "max_queue must be at least 1"),
    ],
    ids=str,
)
def test_invalid_arguments_of_subscribe_are_rejected_at_once(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def story() -> None:
        async with FakeClient(FakeServer()) as client:
            with pytest.raises(error, match=message):
                client.subscribe(**{"topic": TOPIC, **options})

    play(story())
