"""Long polling and polling on virtual time: the answers, and when they come."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from realtime.auth.users import Identity
from realtime.consumers import poll as module
from realtime.consumers.http import Request
from realtime.hub.member_writer import POLL_HOLD_SECONDS
from realtime.hub.presence import RING_CHANGES
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.protocol.names import presence_log
from realtime.publishing import origin_hash
from realtime.stores.base import Page
from realtime.writers.stream import MAX_LIST_BYTES
from tests.consumers.exchange import Exchange, Web
from tests.hub.support import TOPIC

OTHER = "public.other"
ROOM = "room.polled"
PAGE = {"X-Realtime-Origin": "the secret of a page"}
ME = f"connection.{origin_hash(PAGE['X-Realtime-Origin'])}"


def cursor_of(web: Web, topics: str = f"topic={TOPIC}") -> str:
    cursor: str = web.get(f"poll?{topics}").json()["cursor"]
    return cursor


def seqs(answer: Any, topic: str = TOPIC) -> list[int]:
    return [event["seq"] for event in answer["events"] if event["topic"] == topic]


def types(answer: Any) -> list[str]:
    return [frame["type"] for frame in answer["frames"]]


def test_a_poll_without_a_cursor_is_answered_at_once_with_one(web: Web) -> None:
    web.scene.publish(3)
    answer = web.get(f"poll?topic={TOPIC}&wait=25").json()
    assert (answer["events"], answer["more"], answer["reset"]) == ([], False, [])
    assert types(answer) == ["welcome", "subscribed"]
    web.scene.publish(2)
    answer = web.get(f"poll?topic={TOPIC}&since={answer['cursor']}").json()
    assert seqs(answer) == [4, 5]
    assert types(answer) == ["welcome", "subscribed"]


def test_a_poll_with_last_begins_with_the_newest_events(web: Web) -> None:
    web.scene.publish(5)
    assert seqs(web.get(f"poll?topic={TOPIC}&last=2").json()) == [4, 5]


def test_a_long_poll_is_answered_at_the_first_event(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    web.scene.advance(10)
    assert not waiting.sent
    web.scene.publish(3)
    web.scene.advance(0.05)
    assert seqs(waiting.json()) == [1, 2, 3], "with the rest of the burst"


def test_a_long_poll_is_answered_after_its_wait_with_the_unchanged_cursor(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    web.scene.advance(24.9)
    assert not waiting.sent
    web.scene.advance(0.2)
    answer = waiting.json()
    assert (answer["cursor"], answer["events"], answer["more"]) == (cursor, [], False)


def test_a_long_poll_waits_even_if_a_topic_is_refused(web: Web) -> None:
    """The cursor lacks such a topic, so the next poll has no start for it."""
    url = f"poll?topic={TOPIC}&topic=private.1"
    cursor = web.get(url).json()["cursor"]
    waiting = web.open(f"{url}&since={cursor}&wait=25")
    web.scene.advance(24.9)
    assert not waiting.sent
    web.scene.advance(0.2)
    answer = waiting.json()
    assert types(answer) == ["welcome", "error", "subscribed"]
    assert (answer["cursor"], answer["events"]) == (cursor, [])


def test_the_wait_is_limited_to_what_proxies_allow(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=100000")
    web.scene.advance(module.MAX_WAIT_SECONDS + 0.1)
    assert waiting.status == 200


def test_an_ephemeral_event_answers_a_long_poll_and_does_not_change_the_cursor(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    web.scene.ephemeral()
    web.scene.advance(0.05)
    answer = waiting.json()
    assert [event["event"] for event in answer["events"]] == ["typing"]
    assert answer["cursor"] == cursor


def test_a_heartbeat_does_not_answer_a_long_poll(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=45")
    web.scene.advance(44)
    assert not waiting.sent
    web.scene.publish()
    web.scene.advance(0.05)
    assert types(waiting.json()) == ["welcome", "subscribed"]


def test_a_reset_answers_a_long_poll(web: Web) -> None:
    web.scene.publish(3)
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=40")
    web.scene.store.delete(TOPIC)
    web.scene.advance(10)
    answer = waiting.json()
    assert answer["reset"] == [TOPIC]
    assert types(answer)[-1] == "reset"
    assert answer["cursor"] == cursor_of(web)


def test_a_lost_cursor_is_a_reset_that_is_answered_at_once(web: Web) -> None:
    answer = web.get(f"poll?topic={TOPIC}&since=gone.7.00000001&wait=25").json()
    assert answer["reset"] == [TOPIC]
    assert answer["frames"][1]["recovered"] is False
    assert web.get(f"poll?topic={TOPIC}&since={answer['cursor']}").json()["reset"] == []


def test_a_client_that_leaves_a_long_poll_leaves_nothing_behind(web: Web) -> None:
    cursor = cursor_of(web)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    assert web.scene.live.followers == 1
    web.leave(waiting)
    assert waiting.task.done()
    assert not waiting.sent
    assert web.scene.live.followers == 0


def test_a_topic_lingers_between_two_polls(web: Web) -> None:
    cursor = cursor_of(web)
    live = web.scene.live
    web.scene.advance(50)
    web.get(f"poll?topic={TOPIC}&since={cursor}")
    web.scene.advance(50)
    assert web.scene.live is live
    web.scene.advance(70)
    assert TOPIC not in web.scene.hub.topics


def test_a_poll_whose_answer_was_lost_can_be_repeated(web: Web) -> None:
    cursor = cursor_of(web)
    web.scene.publish(5)
    first, second = (web.get(f"poll?topic={TOPIC}&since={cursor}").json() for _ in range(2))
    assert first["events"] == second["events"]
    assert (first["cursor"], len(first["events"])) == (second["cursor"], 5)


def test_parallel_polls_lose_nothing(web: Web) -> None:
    cursor = cursor_of(web)
    both = [web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25") for _ in range(2)]
    web.scene.publish(4)
    web.scene.advance(0.05)
    assert [seqs(each.json()) for each in both] == [[1, 2, 3, 4]] * 2


@pytest.mark.parametrize("limit", [1, 7])
def test_following_more_reaches_the_head_in_order(web: Web, limit: int) -> None:
    web.scene.append(300)
    seen, answers, more, cursor = [], 0, True, "@0"
    while more:
        answer = web.get(f"poll?topic={TOPIC}&since={cursor}&limit={limit}").json()
        assert 0 < len(answer["events"]) <= limit
        seen += seqs(answer)
        cursor, more, answers = answer["cursor"], answer["more"], answers + 1
    assert seen == list(range(1, 301))
    assert answers == -(-300 // limit), "each answer with more was followed by events"


def test_an_answer_has_a_limit_of_bytes(web: Web) -> None:
    web.scene.append(40, size=30_000)
    answer = web.get(f"poll?topic={TOPIC}&since=@0").json()
    assert answer["more"] is True
    assert 1 < len(answer["events"]) < 12


@pytest.mark.parametrize("count", [2, 20])
def test_a_topic_that_fills_the_answer_does_not_keep_another_from_starting(
    web: Web, count: int
) -> None:
    """The hub has the recent events of one; locating the start of the other takes longer."""
    start = cursor_of(web)
    web.scene.publish(count)
    web.scene.append(3, topic=OTHER)
    web.scene.store.after = 0.5
    url = f"poll?topic={TOPIC}&topic={OTHER}&limit=2"
    answer = web.get(f"{url}&since={start}&since=@0").json()
    assert types(answer) == ["welcome", "subscribed", "subscribed"]
    seen, others = seqs(answer), seqs(answer, OTHER)
    assert seen == [1, 2]
    while answer["more"]:
        answer = web.get(f"{url}&since={answer['cursor']}").json()
        seen += seqs(answer)
        others += seqs(answer, OTHER)
    assert seen == list(range(1, count + 1))
    assert others == [1, 2, 3]


def test_a_long_poll_does_not_wait_if_one_topic_has_events_and_another_starts_late(
    web: Web,
) -> None:
    start = cursor_of(web)
    web.scene.publish(1)
    web.scene.store.after = 0.5
    url = f"poll?topic={TOPIC}&topic={OTHER}&since={start}&since=@99999999999&wait=25"
    waiting = web.open(url)
    web.scene.advance(3)
    assert seqs(waiting.json()) == [1]


def test_a_refused_topic_gets_an_error_frame_among_the_others(web: Web) -> None:
    answer = web.get(f"poll?topic={TOPIC}&topic=private.1&topic=crash.1&topic=no.such").json()
    refused = [frame for frame in answer["frames"] if frame["type"] == "error"]
    assert [(f["topic"], f["code"]) for f in refused] == [
        ("private.1", "forbidden"), ("crash.1", "forbidden"), ("no.such", "forbidden"),
    ]  # fmt: skip
    assert len({f["message"] for f in refused}) == 1


# Presence


def members_of(answer: Any) -> list[str]:
    """Return the ids in each list of members of an answer, and those of joins and leaves."""
    found = []
    for frame in answer["frames"]:
        if frame["type"] == "members":
            found.append(" ".join(member["id"] for member in frame["members"]))
        elif frame["type"] in ("join", "leave"):
            found.append(f"{frame['type']} {frame['member']['id']}")
    return found


def test_a_poll_gets_the_members_once_and_then_the_changes(web: Web) -> None:
    first = web.get(f"poll?topic={ROOM}", PAGE)
    assert members_of(first.json()) == [""]
    web.scene.advance(1)
    cursor = first.json()["cursor"]
    for headers in ({}, {"Last-Event-ID": cursor}):
        since = "" if headers else f"&since={cursor}"
        answer = web.get(f"poll?topic={ROOM}{since}", {**PAGE, **headers}).json()
        assert members_of(answer) == [f"join {ME}"]
    assert members_of(web.get(f"poll?topic={ROOM}&since={answer['cursor']}", PAGE).json()) == []


def test_a_join_answers_a_long_poll_and_a_first_list_does_not(web: Web) -> None:
    cursor = web.get(f"poll?topic={ROOM}").json()["cursor"].split(".")[0]
    for since in (cursor, web.get(f"poll?topic={ROOM}").json()["cursor"]):
        waiting = web.open(f"poll?topic={ROOM}&since={since}&wait=25")
        web.scene.advance(1)
        assert not waiting.sent
        waiting.leave()
    waiting = web.open(f"poll?topic={ROOM}&since={since}&wait=25")
    web.get(f"poll?topic={ROOM}", PAGE)
    web.scene.advance(1)
    assert members_of(waiting.json()) == [f"join {ME}"]


def test_a_list_instead_of_missed_changes_answers_a_long_poll(web: Web) -> None:
    cursor = web.get(f"poll?topic={ROOM}").json()["cursor"]
    count = RING_CHANGES + 1
    fill(web, ROOM, count)
    web.scene.advance(10)  # the hub has read the changes, and no longer has the first of them
    waiting = web.open(f"poll?topic={ROOM}&since={cursor}&wait=25")
    web.scene.advance(1)
    (frame,) = [frame for frame in waiting.json()["frames"] if frame["type"] == "members"]
    assert len(frame["members"]) == count


def test_a_list_from_a_node_that_is_behind_does_not_answer_a_long_poll(web: Web) -> None:
    web.get(f"poll?topic={ROOM}")  # so that the hub follows the topic
    fill(web, ROOM, 1)
    logs = [ROOM, presence_log(ROOM)]
    ahead = compose(entry(log, head) for log, head in web.scene.store.heads(logs).items())
    waiting = web.open(f"poll?topic={ROOM}&since={ahead}&wait=25")
    web.scene.advance(0.1)
    assert not waiting.sent
    web.scene.advance(10)
    assert members_of(waiting.json()) == ["", "join user.0"]


def test_a_poll_gets_the_number_of_members_beyond_the_limit_and_waits_for_another(
    web: Web,
) -> None:
    web.scene.hub.limits = replace(web.scene.hub.limits, members=100)
    fill(web, ROOM, 101)
    first = web.get(f"poll?topic={ROOM}").json()
    (frame,) = [frame for frame in first["frames"] if frame["type"] == "members"]
    assert (frame["count"], frame["members"], frame["version"]) == (101, [], 101)
    waiting = web.open(f"poll?topic={ROOM}&since={first['cursor']}&wait=25")
    web.scene.advance(3)
    assert not waiting.sent
    web.get(f"poll?topic={ROOM}", PAGE)
    web.scene.advance(5)
    assert [f["count"] for f in waiting.json()["frames"] if f["type"] == "members"] == [101, 102]


def test_a_visitor_without_an_id_gets_the_members_and_is_not_one(web: Web) -> None:
    web.get(f"poll?topic={ROOM}")
    web.scene.advance(1)
    assert members_of(web.get(f"poll?topic={ROOM}").json()) == [""]


def test_a_join_changes_the_etag(web: Web) -> None:
    first = web.get(f"poll?topic={ROOM}")
    known = {"If-None-Match": etag(first)}
    since = first.json()["cursor"]
    assert web.get(f"poll?topic={ROOM}&since={since}", known).status == 304
    web.get(f"poll?topic={ROOM}", PAGE)
    web.scene.advance(1)
    assert web.get(f"poll?topic={ROOM}&since={since}", known).status == 200


def fill(web: Web, room: str, count: int, size: int = 60) -> None:
    """Add members to a room as another process does."""
    texts = {f"user.{n}": json.dumps({"id": f"user.{n}", "info": "x" * size}) for n in range(count)}
    web.scene.store.change_members(presence_log(room), "another", texts, [])


def test_lists_of_members_leave_room_for_events(web: Web) -> None:
    rooms = [f"room.r{number}" for number in range(20)]
    for room in rooms:
        fill(web, room, 100, 130)
    topics = "&".join(f"topic={room}" for room in rooms)
    cursor = web.get(f"poll?{topics}").json()["cursor"]
    web.scene.publish(1, topic=rooms[-1], size=200_000)
    # Start without presence cursors, like a client that ignores presence.
    answer = web.get(f"poll?{topics}&since=@0").json()
    assert seqs(answer, rooms[-1]) == [1]
    assert not answer["more"]
    assert seqs(web.get(f"poll?{topics}&since={cursor}").json(), rooms[-1]) == [1]


def test_a_list_in_several_frames_is_complete_in_one_answer(web: Web) -> None:
    web.scene.hub.limits = replace(web.scene.hub.limits, members=3_000)
    fill(web, ROOM, 3_000)
    first = web.get(f"poll?topic={ROOM}").json()
    parts = [frame for frame in first["frames"] if frame["type"] == "members"]
    assert [part.get("more", False) for part in parts] == [True, True, False]
    assert sum(len(part["members"]) for part in parts) == 3_000
    own_entry = first["cursor"].split(".")[0]
    waiting = web.open(f"poll?topic={ROOM}&since={own_entry}&wait=25")
    web.scene.advance(20)
    assert not waiting.sent, "without a presence cursor the list is no news"


def test_lists_beyond_the_limit_come_with_later_answers(web: Web) -> None:
    rooms = [f"room.r{number}" for number in range(6)]
    for room in rooms:
        fill(web, room, 400, 1_000)
    topics = "&".join(f"topic={room}" for room in rooms)
    listed: list[str] = []
    since = ""
    for _ in range(3):
        answer = web.get(f"poll?{topics}{since}")
        assert len(answer.body) < 2 * MAX_LIST_BYTES
        listed += [f["topic"] for f in answer.json()["frames"] if f["type"] == "members"]
        since = f"&since={answer.json()['cursor']}"
    assert sorted(set(listed)) == rooms


def test_a_poller_that_gets_304_stays_a_member(web: Web) -> None:
    observer = web.open(f"sse?topic={ROOM}")

    def changes() -> list[str]:
        members = [frame for frame in observer.frames() if "member" in frame]
        return [frame["type"] for frame in members if frame["member"]["id"] == ME]

    answer = web.get(f"poll?topic={ROOM}", PAGE)
    web.scene.advance(1)
    answer = web.get(f"poll?topic={ROOM}&since={answer.json()['cursor']}", PAGE)
    url = f"poll?topic={ROOM}&since={answer.json()['cursor']}"
    for _ in range(30):
        web.scene.advance(3)
        assert web.get(url, {**PAGE, "If-None-Match": etag(answer)}).status == 304
    assert changes() == ["join"]
    web.scene.advance(POLL_HOLD_SECONDS + 1)
    assert changes() == ["join", "leave"]


def test_a_head_request_does_not_make_its_client_a_member(web: Web) -> None:
    assert web.get(f"poll?topic={ROOM}", PAGE, method="HEAD").status == 200
    web.scene.advance(1)
    assert members_of(web.get(f"poll?topic={ROOM}").json()) == [""]


# Conditional requests


def test_a_head_request_gets_no_etag_as_it_gets_no_events(web: Web) -> None:
    web.scene.publish(3)
    assert "etag" not in web.get(f"poll?topic={TOPIC}&last=3", method="HEAD").headers


def test_an_older_cursor_is_answered_in_full_whatever_the_etag(web: Web) -> None:
    older = cursor_of(web)
    web.scene.publish(3)
    newest = web.get(f"poll?topic={TOPIC}&since={older}")
    again = web.get(f"poll?topic={TOPIC}&since={older}", {"If-None-Match": etag(newest)})
    assert seqs(again.json()) == [1, 2, 3]


def etag(exchange: Exchange) -> str:
    return exchange.headers["etag"]


@pytest.mark.parametrize("form", ["{}", '"x", {}', '{}, W/"y"', "*", "strong"])
def test_the_etag_of_the_head_is_answered_with_304_without_reading_the_log(
    web: Web, form: str
) -> None:
    web.scene.publish(3)
    first = web.get(f"poll?topic={TOPIC}&since=@0")
    known = etag(first).removeprefix("W/") if form == "strong" else form.format(etag(first))
    web.scene.store.calls.clear()
    again = web.get(f"poll?topic={TOPIC}&since={first.json()['cursor']}", {"If-None-Match": known})
    assert (again.status, again.body) == (304, b"")
    assert etag(again) == etag(first)
    assert not {"read", "locate", "heads"} & set(web.scene.store.calls)


@pytest.mark.parametrize("form", ['"other"', "nonsense", ""])
def test_another_etag_is_answered_in_full(web: Web, form: str) -> None:
    web.scene.publish(3)
    assert len(web.get(f"poll?topic={TOPIC}&since=@0", {"If-None-Match": form}).json()["events"])


def test_an_event_changes_the_etag(web: Web) -> None:
    first = web.get(f"poll?topic={TOPIC}")
    web.scene.publish()
    since = first.json()["cursor"]
    second = web.get(f"poll?topic={TOPIC}&since={since}", {"If-None-Match": etag(first)})
    assert seqs(second.json()) == [1]
    assert etag(second) != etag(first)


def test_the_etag_of_an_answer_with_more_is_not_that_of_the_head(web: Web) -> None:
    web.scene.publish(3)
    first = web.get(f"poll?topic={TOPIC}&since=@0&limit=1")
    since = first.json()["cursor"]
    second = web.get(f"poll?topic={TOPIC}&since={since}", {"If-None-Match": etag(first)})
    assert seqs(second.json()) == [2, 3]


def test_a_head_request_gets_the_headers_and_no_body(web: Web) -> None:
    answer = web.get(f"poll?topic={TOPIC}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_no_answer_is_cached(web: Web) -> None:
    for url in (f"poll?topic={TOPIC}", "poll?topic=private.1"):
        headers = web.get(url).headers
        assert headers["cache-control"] == "no-store, private"
        assert headers["x-content-type-options"] == "nosniff"
        assert "Cookie" in headers["vary"]


# Refusals

BAD = [
    ("poll", 400, "bad_topic"),
    ("poll?topic=&topic=public.a", 400, "bad_topic"),
    ("poll?topic=a%20b", 400, "bad_topic"),
    ("poll?topic=public.a%0d%0adata:%20x", 400, "bad_topic"),
    ("poll?topic=public.%00", 400, "bad_topic"),
    ("poll?topic=" + "a" * 201, 400, "bad_topic"),
    ("poll?" + "&".join(f"topic=public.t{n}" for n in range(101)), 400, "too_many_topics"),
    ("poll?" + "&".join(["a=1"] * 1_301), 400, "bad_frame"),
    ("poll?topic=private.1", 403, "forbidden"),
    ("poll?topic=crash.1&topic=orders.1", 403, "forbidden"),
    ("poll?topic=public.a&since=yesterday", 400, "bad_cursor"),
    ("poll?topic=public.a&since=%00", 400, "bad_cursor"),
    ("poll?topic=public.a&since=a~b~c", 400, "bad_cursor"),
    ("poll?topic=public.a&since=" + "~" * 20_000, 400, "bad_cursor"),
    ("poll?topic=public.a&topic=public.b&since=e.1.00000001", 400, "bad_cursor"),
    ("poll?topic=public.a&wait=-1", 400, "bad_frame"),
    ("poll?topic=public.a&wait=1.5", 400, "bad_frame"),
    ("poll?topic=public.a&wait=²", 400, "bad_frame"),
    ("poll?topic=public.a&wait=" + "9" * 5_000, 400, "bad_frame"),
    ("poll?topic=public.a&limit=0", 400, "bad_frame"),
    ("poll?topic=public.a&last=x", 400, "bad_frame"),
    ("poll?topic=public.a&v=2", 400, "bad_version"),
]


@pytest.mark.parametrize("path", ["poll", "sse"])
@pytest.mark.parametrize(("url", "status", "code"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_request_gets_an_error_with_a_hint(
    web: Web, path: str, url: str, status: int, code: str
) -> None:
    if path == "sse" and ("wait=" in url or "limit=" in url):
        return  # a stream has no such fields
    answer = web.get(path + url.removeprefix("poll"))
    body = answer.json()
    assert (answer.status, body["code"], body["type"]) == (status, code, "error")
    assert body["message"]
    assert body["hint"]
    assert body["retry"] is False
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["poll", "sse"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_another_method_gets_the_allowed_ones(web: Web, path: str, method: str) -> None:
    answer = web.get(f"{path}?topic={TOPIC}", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["poll", "sse"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
)
def test_a_page_of_another_site_is_refused(
    web: Web, settings: Any, path: str, headers: dict[str, str]
) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    answer = web.get(f"{path}?topic={TOPIC}", headers)
    assert (answer.status, answer.json()["code"]) == (403, "forbidden_origin")


@pytest.mark.parametrize("path", ["poll", "sse"])
def test_a_log_that_cannot_be_reached_is_503_with_retry_after(web: Web, path: str) -> None:
    web.scene.store.failing = True
    answer = web.get(f"{path}?topic={TOPIC}")
    assert (answer.status, answer.json()["code"]) == (503, "unavailable")
    assert answer.json()["retry"] is True
    assert int(answer.headers["retry-after"]) > 0


def test_a_log_that_fails_after_the_join_is_503(web: Web) -> None:
    cursor_of(web)
    web.scene.store.failing = True
    answer = web.get(f"poll?topic={TOPIC}&since=@0")
    assert (answer.status, answer.json()["code"]) == (503, "unavailable")


def test_a_log_that_fails_during_a_replay_ends_the_answer_early(web: Web) -> None:
    store = web.scene.store
    web.scene.append(30)
    cursor_of(web)

    async def read(topic: str, after: Cursor, *limits: int) -> Page:
        page = await store._slowly(store.read, topic, after, 10)
        store.failing = True  # after the first page
        return page

    store.aread = read  # type: ignore[method-assign, assignment]
    waiting = web.open(f"poll?topic={TOPIC}&since=@0")
    web.scene.advance(module.CATCH_UP_SECONDS - 1)
    assert not waiting.sent, "the log may come back"
    web.scene.advance(2)
    answer = waiting.json()
    assert (seqs(answer), answer["more"]) == (list(range(1, 11)), True)


def test_a_replay_that_fails_for_good_is_503(web: Web) -> None:
    store = web.scene.store
    web.scene.append(30)
    cursor_of(web)

    async def read(topic: str, after: Cursor, *limits: int) -> Page:
        if after.seq:
            raise RuntimeError("a fault of the store")
        return await store._slowly(store.read, topic, after, 10)

    store.aread = read  # type: ignore[method-assign, assignment]
    for wait in (0, 25):
        answer = web.get(f"poll?topic={TOPIC}&since=@0&wait={wait}")
        assert (answer.status, answer.json()["code"]) == (503, "unavailable")


def test_a_poll_that_fails_while_its_token_nears_its_end_is_503_and_not_401(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = cursor_of(web)

    async def identify(self: Request) -> Identity:
        return Identity(AnonymousUser(), expires=time.time() + 20)

    monkeypatch.setattr(Request, "identify", identify)
    waiting = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    [connection] = web.scene.hub.connections
    web.scene.loop.call_soon(connection.close, CloseCode.FAILED)
    web.scene.advance(0.1)
    assert (waiting.status, waiting.json()["code"]) == (503, "unavailable")


def test_an_error_of_the_server_is_json_without_details(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("realtime.consumers.http.Request.identify", broken)
    for path in ("poll", "sse"):
        answer = web.get(f"{path}?topic={TOPIC}")
        assert (answer.status, answer.json()["code"]) == (500, "failed")
        assert b"secret" not in answer.body


def test_an_answer_contains_the_frames_as_they_were_encoded(web: Web) -> None:
    web.scene.publish(1)
    text = web.get(f"poll?topic={TOPIC}&since=@0").body.decode()
    (event,) = json.loads(text)["events"]
    assert json.dumps(event, separators=(",", ":")) in text
