"""The channel layer contract: one test for each sentence of Channels' specification.

A test module subclasses it and provides the fixture `make_layer`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from channels.exceptions import ChannelFull

from tests.support.waiting import SCALE, await_until

MakeLayer = Callable[..., Any]


async def receive(layer: Any, channel: str) -> dict[str, Any]:
    """Return the next message of a channel; fail if none arrives."""
    async with asyncio.timeout(10 * SCALE):
        return await layer.receive(channel)


async def next_is(layer: Any, channel: str, number: int) -> None:
    """Fail unless the next message of the channel has this number."""
    assert (await receive(layer, channel))["number"] == number


class ChannelLayerContract:
    """Claims that hold on every channel layer."""

    async def test_a_layer_names_its_extensions(self, make_layer: MakeLayer) -> None:
        layer = make_layer(group_expiry=1234)
        assert set(layer.extensions) == {"groups", "flush"}
        assert layer.group_expiry == 1234

    async def test_channels_are_first_in_first_out(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        for channel in (await layer.new_channel(), "worker"):
            for number in range(20):
                await layer.send(channel, {"number": number})
            for number in range(20):
                await next_is(layer, channel, number)

    async def test_a_message_keeps_values_of_every_allowed_type(
        self, make_layer: MakeLayer
    ) -> None:
        layer = make_layer()
        message = {
            "type": "all.types",
            "bytes": b"\x00\xff",
            "text": "Grüße \U0001f600",
            "integers": [0, -(2**63), 2**63 - 1],
            "float": 0.1,
            "nested": {"list": [None, True, False]},
        }
        for channel in (await layer.new_channel(), "worker"):
            await layer.send(channel, message)
            assert await receive(layer, channel) == message

    async def test_a_message_of_one_megabyte_arrives(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        message = {"type": "large", "text": "x" * 1_000_000}
        for channel in (await layer.new_channel(), "worker"):
            await layer.send(channel, message)
            assert await receive(layer, channel) == message

    async def test_a_waiting_reader_gets_the_next_message(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        for channel in (await layer.new_channel(), "worker"):
            waiting = asyncio.create_task(receive(layer, channel))
            await asyncio.sleep(0)
            await layer.send(channel, {"number": 1})
            assert (await waiting)["number"] == 1

    async def test_two_readers_of_a_channel_share_its_messages(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        for channel in (await layer.new_channel(), "worker"):
            readers = [asyncio.create_task(receive(layer, channel)) for _ in range(10)]
            for number in range(10):
                await layer.send(channel, {"number": number})
            got = [message["number"] for message in await asyncio.gather(*readers)]
            assert sorted(got) == list(range(10))

    async def test_a_cancelled_reader_loses_no_message(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        for turns in range(3):
            reader = asyncio.create_task(layer.receive(channel))
            await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            await layer.send(channel, {"number": turns})
            reader.cancel()
            (result,) = await asyncio.gather(reader, return_exceptions=True)
            if isinstance(result, asyncio.CancelledError):
                await next_is(layer, channel, turns)
            else:
                assert result["number"] == turns

    async def test_each_reader_gets_its_own_copy(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("copies", channel)
        message = {"type": "x", "list": [1]}
        await layer.group_send("copies", message)
        message["list"].append(2)
        first = await receive(layer, channels[0])
        first["list"].append(3)
        assert (await receive(layer, channels[1]))["list"] == [1]

    async def test_send_to_a_full_channel_raises_channel_full(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=3)
        for channel in (await layer.new_channel(), "worker"):
            for number in range(3):
                await layer.send(channel, {"number": number})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"number": 3})
            for number in range(3):
                await next_is(layer, channel, number)
            await layer.send(channel, {"number": 4})
            await next_is(layer, channel, 4)

    async def test_an_unread_message_expires(self, make_layer: MakeLayer) -> None:
        layer = make_layer(expiry=1)
        for channel in (await layer.new_channel(), "worker"):
            await layer.send(channel, {"number": 1})
            end = time.monotonic() + 1.1
            await await_until(lambda end=end: time.monotonic() > end, "the message has expired")
            await layer.send(channel, {"number": 2})
            await next_is(layer, channel, 2)

    async def test_a_name_of_99_characters_is_valid(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        for name in ("x" * 99, await layer.new_channel("y" * 50)):
            await layer.group_add("g" * 99, name)
            await layer.group_send("g" * 99, {"number": 1})
            await next_is(layer, name, 1)
            await layer.group_discard("g" * 99, name)

    async def test_a_full_channel_does_not_delay_another(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=500)
        busy, quiet = await layer.new_channel(), await layer.new_channel()
        for number in range(500):
            await layer.send(busy, {"number": number})
        await layer.send(quiet, {"number": 1})
        await next_is(layer, quiet, 1)
        await next_is(layer, busy, 0)

    async def test_new_channels_have_unique_names_with_an_exclamation_mark(
        self, make_layer: MakeLayer
    ) -> None:
        layer = make_layer()
        names = {await layer.new_channel() for _ in range(100)}
        assert len(names) == 100
        assert all("!" in name and len(name) < 100 for name in names)
        prefixed = await layer.new_channel("upload")
        assert prefixed.startswith("upload")
        await layer.send(prefixed, {"number": 1})
        await next_is(layer, prefixed, 1)

    # Groups

    async def test_a_group_message_reaches_every_member_once(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        members = [await layer.new_channel() for _ in range(3)] + ["worker"]
        outsider = await layer.new_channel()
        for channel in members:
            await layer.group_add("orders", channel)
            await layer.group_add("orders", channel)  # the second call changes nothing
        for number in range(3):
            await layer.group_send("orders", {"number": number})
        await layer.send(outsider, {"number": 99})
        for channel in members:
            for number in range(3):
                await next_is(layer, channel, number)
            await layer.send(channel, {"number": 7})
            await next_is(layer, channel, 7)
        await next_is(layer, outsider, 99)

    async def test_a_discarded_channel_gets_no_group_messages(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        stays, goes = [await layer.new_channel() for _ in range(2)]
        await layer.group_add("orders", stays)
        await layer.group_add("orders", goes)
        await layer.group_discard("orders", goes)
        await layer.group_discard("orders", goes)  # the second call changes nothing
        await layer.group_discard("never", goes)
        await layer.group_send("orders", {"number": 1})
        await layer.send(goes, {"number": 2})
        await next_is(layer, stays, 1)
        await next_is(layer, goes, 2)

    async def test_group_send_never_raises_channel_full(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=2)
        full, roomy = [await layer.new_channel() for _ in range(2)]
        await layer.group_add("orders", full)
        await layer.group_add("orders", roomy)
        for number in range(5):
            await layer.group_send("orders", {"number": number})
            await next_is(layer, roomy, number)
        for number in range(2):
            await next_is(layer, full, number)
        await layer.send(full, {"number": 9})
        await next_is(layer, full, 9)

    async def test_a_membership_expires(self, make_layer: MakeLayer) -> None:
        layer = make_layer(group_expiry=1)
        members = [await layer.new_channel(), "worker"]
        for channel in members:
            await layer.group_add("orders", channel)
        end = time.monotonic() + 2.1  # Channels' own layer counts whole seconds
        await await_until(lambda: time.monotonic() > end, "the memberships have expired")
        await layer.group_send("orders", {"number": 1})
        for channel in members:
            await layer.send(channel, {"number": 2})
            await next_is(layer, channel, 2)

    async def test_group_add_extends_a_membership(self, make_layer: MakeLayer) -> None:
        layer = make_layer(group_expiry=2)
        members = [await layer.new_channel(), "worker"]
        end = time.monotonic() + 2.1

        async def keep() -> bool:
            for channel in members:
                await layer.group_add("orders", channel)
            return time.monotonic() > end

        await await_until(keep, "the first memberships would have expired")
        await layer.group_send("orders", {"number": 1})
        for channel in members:
            await next_is(layer, channel, 1)

    async def test_a_message_to_a_group_without_members_is_accepted(
        self, make_layer: MakeLayer
    ) -> None:
        await make_layer().group_send("nobody", {"number": 1})

    async def test_flush_removes_messages_and_groups(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        await layer.group_add("orders", channel)
        await layer.send(channel, {"number": 1})
        await layer.send("worker", {"number": 1})
        await layer.flush()
        await layer.group_send("orders", {"number": 2})
        for name in (channel, "worker"):
            await layer.send(name, {"number": 3})
            await next_is(layer, name, 3)

    # Refusals

    @pytest.mark.parametrize("name", ["", "a b", "ä", "a!b!c", "x" * 100, "a/b", 7, None, b"a"])
    async def test_an_invalid_name_raises_type_error(
        self, make_layer: MakeLayer, name: Any
    ) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        for call in (
            layer.send(name, {"number": 1}),
            layer.receive(name),
            layer.group_add("orders", name),
            layer.group_add(name, channel),
            layer.group_discard("orders", name),
            layer.group_discard(name, channel),
            layer.group_send(name, {"number": 1}),
        ):
            with pytest.raises(TypeError, match="name must be a valid unicode string"):
                await call

    async def test_a_group_name_must_not_have_an_exclamation_mark(
        self, make_layer: MakeLayer
    ) -> None:
        with pytest.raises(TypeError):
            await make_layer().group_send("a!b", {"number": 1})

    @pytest.mark.parametrize("message", ["text", None, [1]])
    async def test_a_message_that_is_not_a_dict_is_refused(
        self, make_layer: MakeLayer, message: Any
    ) -> None:
        layer = make_layer()
        with pytest.raises((TypeError, AssertionError)):
            await layer.send("worker", message)
        with pytest.raises((TypeError, AssertionError)):
            await layer.group_send("orders", message)
