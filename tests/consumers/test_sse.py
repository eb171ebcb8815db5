"""Event streams on virtual time: their content, and how they end."""

import asyncio
import random
from typing import Any

import pytest

from realtime.consumers import sse
from realtime.writers import asgi
from tests.consumers.exchange import Exchange, Web
from tests.hub.support import TOPIC

OTHER = "public.other"


def types(stream: Exchange) -> list[str]:
    return [frame["type"] for frame in stream.frames()]


def resume(stream: Exchange) -> dict[str, str]:
    """Return the header that a browser sends when it reconnects."""
    return {"Last-Event-ID": stream.reader._id}


def test_a_stream_begins_with_padding_a_retry_time_and_the_welcome(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    assert stream.status == 200
    lines = stream.body.split(b"\n")
    assert lines[0].startswith(b":")
    assert len(lines[0]) >= 2_048
    assert 1_000 <= (stream.reader.retry or 0) <= 3_000
    assert types(stream) == ["welcome", "subscribed"]


def test_the_headers_turn_off_caching_and_buffering(web: Web) -> None:
    headers = web.open(f"sse?topic={TOPIC}").headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["x-accel-buffering"] == "no"
    assert {"no-store", "no-transform"} <= set(headers["cache-control"].split(", "))
    assert "content-length" not in headers


def test_clients_get_different_retry_times(web: Web) -> None:
    random.seed(1)
    assert len({web.open(f"sse?topic={TOPIC}").reader.retry for _ in range(5)}) > 1


def test_a_new_stream_resumes_from_the_id_of_the_last_event(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    web.scene.publish(3)
    assert stream.seqs() == [1, 2, 3]
    web.leave(stream)
    web.scene.publish(2)
    again = web.open(f"sse?topic={TOPIC}", headers=resume(stream))
    assert again.frames()[1]["recovered"] is True
    web.scene.publish(1)
    assert again.seqs() == [4, 5, 6]


def test_each_id_has_the_cursors_of_all_topics(web: Web) -> None:
    url = f"sse?topic={TOPIC}&topic={OTHER}"
    stream = web.open(url)
    web.scene.publish(2, topic=OTHER)
    web.scene.publish(2)
    web.leave(stream)
    web.scene.publish(1)
    web.scene.publish(1, topic=OTHER)
    again = web.open(url, headers=resume(stream))
    events = [(f["topic"], f["seq"]) for f in again.frames() if f["type"] == "event"]
    assert sorted(events) == [(OTHER, 3), (TOPIC, 3)]


def test_a_stream_that_is_cut_off_before_its_first_answers_keeps_all_cursors(web: Web) -> None:
    url = f"sse?topic={TOPIC}&topic={OTHER}"
    first = web.open(url)
    web.scene.publish(1)
    web.scene.publish(1, topic=OTHER)
    web.leave(first)
    web.scene.publish(300, topic=OTHER)  # more than the hub keeps, so it must read the log
    web.scene.store.after = 1.0
    second = web.open(url, headers=resume(first))
    assert [f["topic"] for f in second.frames() if "topic" in f] == [TOPIC]
    headers = resume(second)  # the ids so far: later ones do not reach the client
    web.leave(second)
    web.scene.store.after = 0.0
    web.scene.advance(2)
    third = web.open(url, headers=headers)
    web.scene.advance(1)
    assert {f["topic"]: f["recovered"] for f in third.frames() if f["type"] == "subscribed"} == {
        TOPIC: True, OTHER: True,
    }  # fmt: skip
    seqs = [f["seq"] for f in third.frames() if f.get("topic") == OTHER and "seq" in f]
    assert seqs == list(range(2, 302))


def test_last_event_id_takes_precedence_over_since_for_the_topics_that_it_has(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    web.scene.publish(2)
    web.scene.publish(2, topic=OTHER)
    again = web.open(f"sse?topic={TOPIC}&topic={OTHER}&since=@0", headers=resume(stream))
    events = [(f["topic"], f["seq"]) for f in again.frames() if f["type"] == "event"]
    assert sorted(events) == [(OTHER, 1), (OTHER, 2)]


@pytest.mark.parametrize("last_id", ["nonsense", "e.1.00000001", "gone~AAAAAAAAAAAA1", "~" * 9_000])
def test_a_last_event_id_that_cannot_be_read_is_a_lost_cursor(web: Web, last_id: str) -> None:
    url = f"sse?topic={TOPIC}&topic={OTHER}&since=@0"
    web.scene.publish(2)
    stream = web.open(url, headers={"Last-Event-ID": last_id})
    if last_id.startswith("gone"):  # the id is of other topics, so since applies
        assert stream.seqs() == [1, 2]
        return
    answers = [frame for frame in stream.frames() if frame["type"] == "subscribed"]
    assert [answer["recovered"] for answer in answers] == [False, False]
    again = web.open(url, headers=resume(stream))
    answers = [frame for frame in again.frames() if frame["type"] == "subscribed"]
    assert [answer["recovered"] for answer in answers] == [True, True], "it is reset only once"


def test_a_client_that_asks_for_no_ids_gets_none(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}&ids=0")
    web.scene.publish(2)
    assert stream.seqs() == [1, 2]
    assert b"\nid:" not in stream.body


def test_all_streams_share_the_bytes_of_an_event(web: Web) -> None:
    streams = [web.open(f"sse?topic={TOPIC}&ids=0") for _ in range(3)]
    web.scene.publish(1)
    assert len({stream.sent[-1]["body"] for stream in streams}) == 1


def test_a_silent_stream_gets_a_heartbeat_that_a_browser_receives(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    web.scene.advance(26)
    assert types(stream)[-1] == "heartbeat"
    assert stream.sent[-1]["body"].startswith(b"data: ")
    last_id = stream.reader._id
    assert last_id, "the heartbeat keeps the client's cursor"
    assert resume(stream) == {"Last-Event-ID": last_id}


def test_a_refused_topic_gets_an_error_frame(web: Web) -> None:
    stream = web.open(f"sse?topic=private.1&topic={TOPIC}&topic=crash.1")
    errors = [frame for frame in stream.frames() if frame["type"] == "error"]
    assert [error["topic"] for error in errors] == ["private.1", "crash.1"]
    web.scene.publish(1)
    assert stream.seqs() == [1]


def test_an_idle_stream_has_one_task(web: Web) -> None:
    for _ in range(20):
        web.open(f"sse?topic={TOPIC}")
    web.scene.publish(1)
    web.scene.advance(1)
    assert len(web.scene.tasks()) <= 20 + 1


def test_a_head_request_gets_the_headers_and_follows_nothing(web: Web) -> None:
    answer = web.get(f"sse?topic={TOPIC}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert web.scene.live.followers == 0


# Ends


@pytest.mark.parametrize("steps", range(12))
def test_a_client_that_disconnects_at_any_time_leaves_nothing_behind(web: Web, steps: int) -> None:
    """Daphne cancels the application when a client disconnects."""
    web.scene.append(600)
    web.scene.store.before = 0.1
    stream = web.open(f"sse?topic={TOPIC}&topic={OTHER}&topic=public.third&since=@0")
    web.scene.advance(0.05 * steps)

    async def cancel() -> None:
        stream.task.cancel()
        await asyncio.wait([stream.task])

    web.scene.run(cancel())
    web.scene.advance(20)
    assert not web.scene.hub.connections
    assert [live.followers for live in web.scene.hub.topics.values() if live.followers] == []
    assert not web.scene.tasks()


def test_a_topic_that_has_joined_is_released_if_another_fails(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.open(f"sse?topic={TOPIC}")
    web.scene.store.failing = True
    answer = web.get(f"sse?topic={TOPIC}&topic={OTHER}")
    assert answer.status == 503
    assert web.scene.live.followers == 1


def test_a_stream_whose_log_cannot_be_read_sends_closing(web: Web) -> None:
    web.open(f"sse?topic={TOPIC}")
    web.scene.append(3)
    web.scene.store.failing = True
    stream = web.get(f"sse?topic={TOPIC}&since=@0")
    assert stream.frames()[-1] == {"type": "closing", "reason": "failed"}
    assert stream.task.done()


def test_a_client_that_never_reads_has_a_bounded_buffer_and_is_closed(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    stream.gate.clear()
    (connection,) = web.scene.hub.connections
    most = 0
    for _ in range(60):
        web.scene.publish(5, size=20_000)
        most = max(most, connection.writer.unsent)
    assert 900_000 < most <= connection.limit
    web.scene.advance(asgi.STALL_SECONDS + 2 * asgi.CLOSE_SECONDS + 1)
    assert stream.task.done()
    assert not web.scene.hub.connections
    assert web.scene.live.followers == 0


def test_a_client_that_reads_slowly_receives_everything_and_is_not_closed(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    stream.gate.clear()
    web.scene.publish(100, size=20_000)

    async def read() -> None:
        stream.gate.set()

    web.scene.run(read())
    web.scene.advance(5)
    assert stream.seqs() == list(range(1, 101))


def test_a_connection_that_breaks_at_a_write_ends_at_the_disconnect(web: Web) -> None:
    stream = web.open(f"sse?topic={TOPIC}")
    stream.failing = True
    web.scene.publish(2)
    web.leave(stream)
    assert stream.task.done()


def test_a_connection_that_breaks_at_the_first_write_ends_at_once(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any) -> None:
        raise OSError("the connection is gone")

    monkeypatch.setattr(sse._Stream, "_start", broken)
    stream = web.open(f"sse?topic={TOPIC}")
    assert stream.task.done()
    assert web.scene.live.followers == 0
