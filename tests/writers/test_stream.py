"""The framing of event streams, and the writer that collects the answer of a poll."""

import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocol.cursors import CompositeCursor
from realtime.protocol.encoders import Frame, Kind, Wire, encode_data, event_frame, http_chunk
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import HEARTBEAT, frame
from realtime.writers.stream import CollectingWriter, StreamFraming
from tests.support.http import StreamReader

evil = st.text(st.sampled_from('\r\n\0\x0b\x0c\x1c\x85\u2028\u2029 :adientv\ud800"\\'), max_size=30)
ENDS = re.compile(b"\r\n|\r|\n")


def body(framing: StreamFraming, sent: Frame) -> bytes:
    ((message, size),) = framing.messages([sent])
    assert size == len(message["body"])
    if framing.wire_format is None:
        assert framing.encode([sent]) == http_chunk(message["body"])
    else:
        assert sent.wire(framing.wire_format) == http_chunk(message["body"])
    return bytes(message["body"])


@given(topic=evil, name=evil, data=evil, origin=evil)
def test_no_text_forges_a_line(topic: str, name: str, data: str, origin: str) -> None:
    """Such names are refused long before; this holds even if they were not."""
    cursor = Cursor("e", 1, 2)
    text = event_frame(Event(topic, name, encode_data(data, repr, 9_999), cursor, 1.5, origin))
    chunk = body(StreamFraming({}), Frame(text, ("public.a", cursor)))
    lines = ENDS.split(chunk)
    assert [line.partition(b":")[0] for line in lines] == [b"data", b"id", b"", b""]
    assert b"\0" not in chunk
    reader = StreamReader()
    reader.feed(chunk)
    ((entry, last_id),) = reader.entries
    assert entry == text
    assert json.loads(entry)["event"] == name
    assert CompositeCursor(last_id).get("public.a") == cursor


@given(topic=evil)
def test_the_refusal_of_a_topic_forges_no_line(topic: str) -> None:
    chunk = body(StreamFraming({}), Frame(frame("error", topic=topic, message="no")))
    assert len(ENDS.split(chunk)) == 3


def test_shared_bytes_end_before_the_id() -> None:
    cursors = [("public.a", Cursor("e", n, n)) for n in (1, 2)]
    sent = Frame('{"type":"event"}', cursors[1])
    one, two = StreamFraming({}), StreamFraming(dict([cursors[0], ("public.b", Cursor("f", 9, 9))]))
    assert body(one, sent).startswith(sent.wire(Wire.LINE) + b"id: ")
    assert body(two, sent).startswith(sent.wire(Wire.LINE) + b"id: ")
    assert body(one, sent) != body(two, sent)


def test_an_id_has_the_newest_cursor_of_each_topic() -> None:
    framing = StreamFraming({"public.a": Cursor("e", 1, 1), "public.b": Cursor("f", 5, 5)})
    reader = StreamReader()
    reader.feed(body(framing, Frame("{}", ("public.a", Cursor("e", 2, 7)))))
    composite = CompositeCursor(reader.entries[0][1])
    assert composite.get("public.a") == Cursor("e", 2, 7)
    assert composite.get("public.b") == Cursor("f", 5, 5)


def test_a_frame_without_a_cursor_has_no_id() -> None:
    assert body(StreamFraming({"a": Cursor("e", 1, 1)}), Frame(HEARTBEAT)).count(b"\n") == 2


def test_a_stream_without_ids_has_none() -> None:
    assert b"id:" not in body(StreamFraming(None), Frame("{}", ("a", Cursor("e", 1, 1))))


def test_the_close_message_ends_the_body() -> None:
    assert StreamFraming(None).close_message(4512)["more_body"] is False


async def test_a_collecting_writer_with_enough_events_is_at_its_limit_and_never_beyond() -> None:
    writer = CollectingWriter(max_events=2, max_bytes=1_000)
    event = Frame('{"type":"event"}', kind=Kind.EVENT)
    writer.write(event)
    assert writer.unsent == event.size
    writer.write(event)
    assert writer.unsent == 1_000
    writer.write(Frame("x" * 5_000))
    assert writer.unsent == 1_000
    assert len(writer.frames) == 3


async def test_a_collecting_writer_drops_heartbeats_and_frames_after_its_end() -> None:
    writer = CollectingWriter(2, 1_000)
    writer.write(Frame(HEARTBEAT))
    writer.abort()
    writer.write(Frame("{}"))
    assert writer.frames == []


async def test_a_collecting_writer_is_full_once_a_caller_waits_for_it_to_drain() -> None:
    writer = CollectingWriter(1, 1_000)
    waiting = asyncio.create_task(writer.drain(0))
    await writer.changed()
    assert writer.full
    assert not waiting.done(), "it never drains"
    waiting.cancel()
    writer.wake()
    await writer.changed()
    with pytest.raises(AssertionError):
        await writer._send({})
