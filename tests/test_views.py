"""Polling under WSGI: the same answers as under ASGI, from a Django view."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError
from django.test import Client, override_settings

from realtime import Topic, publish, register, views
from realtime.exceptions import StoreUnavailable
from realtime.protocol.names import presence_log
from realtime.retention import trim_all
from realtime.stores import get_store
from realtime.topics import isolated
from tests.consumers.test_poll import BAD, seqs, types

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.wsgi_urls"),
    pytest.mark.usefixtures("two_aliases"),
]

URL = "/realtime/poll"


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[-60:]
    return f"public.{name}"


def get(client: Client, *topics: str, status: int = 200, **fields: Any) -> Any:
    headers = fields.pop("headers", {})
    response = client.get(URL, {"topic": topics, **fields}, headers=headers)
    assert response.status_code == status, response.content
    return response.json() if response.content else response


def fill(topic: str, count: int) -> None:
    for number in range(count):
        publish(topic, "tick", number)


def test_a_client_follows_by_polling(client: Client, topic: str) -> None:
    fill(topic, 2)
    answer = get(client, topic)
    assert (types(answer), answer["events"]) == (["welcome", "subscribed"], [])
    fill(topic, 3)
    answer = get(client, topic, since=answer["cursor"])
    assert seqs(answer, topic) == [3, 4, 5]
    assert (answer["more"], answer["reset"]) == (False, [])
    assert answer["frames"][1] | {"cursor": ""} == {
        "type": "subscribed", "topic": topic, "cursor": "", "recovered": True, "replayed": 3,
    }  # fmt: skip


def test_a_poll_with_wait_is_answered_at_once(client: Client, topic: str) -> None:
    cursor = get(client, topic)["cursor"]
    assert get(client, topic, since=cursor, wait=50)["cursor"] == cursor


def test_following_more_reaches_the_head(client: Client, topic: str) -> None:
    other = f"{topic}-other"
    cursor = get(client, topic, other)["cursor"]
    fill(topic, 7)
    fill(other, 7)
    seen: list[int] = []
    others: list[int] = []
    more = True
    while more:
        answer = get(client, topic, other, since=cursor, limit=3)
        assert 0 < len(answer["events"]) <= 3
        seen += seqs(answer, topic)
        others += seqs(answer, other)
        cursor, more = answer["cursor"], answer["more"]
    assert seen == others == [1, 2, 3, 4, 5, 6, 7]
    both = get(client, topic, f"{topic}-empty", since="@0", limit=3)
    assert both["more"] is True, "the first topic has more events, though the last one has none"


def test_last_and_times_set_the_start(client: Client, topic: str) -> None:
    fill(topic, 5)
    assert seqs(get(client, topic, last=2), topic) == [4, 5]
    assert seqs(get(client, topic, since="@0"), topic) == [1, 2, 3, 4, 5]
    assert seqs(get(client, topic, since="@99999999999"), topic) == []


def test_a_topic_without_history_gives_no_old_events_but_resumes(client: Client) -> None:
    topic = "recent.views"
    cursor = get(client, topic)["cursor"]
    fill(topic, 2)
    answer = get(client, topic, since="@0")
    assert (answer["events"], answer["reset"]) == ([], [topic])
    assert seqs(get(client, topic, last=5), topic) == [1, 2]
    assert seqs(get(client, topic, since=cursor), topic) == [1, 2]


def test_a_trimmed_log_resets_once(client: Client) -> None:
    topic = "tiny.views"
    fill(topic, 1)
    cursor = get(client, topic)["cursor"]
    fill(topic, 30)
    trim_all()
    answer = get(client, topic, since=cursor)
    assert (answer["reset"], answer["events"]) == ([topic], [])
    assert get(client, topic, since=answer["cursor"])["reset"] == []


def test_an_unchanged_head_is_304_without_reading_the_log(
    client: Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(topic, 2)
    first = client.get(URL, {"topic": topic, "since": "@0"})

    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the log was read")

    monkeypatch.setattr(type(get_store()), "read", read)
    headers = {"If-None-Match": first["ETag"]}
    response = client.get(URL, {"topic": topic, "since": first.json()["cursor"]}, headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response["ETag"] == first["ETag"]


def test_a_permission_method_that_hangs_does_not_keep_the_thread(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()

    class HangingTopic(Topic):
        anonymous = True

        def can_subscribe(self, user: Any) -> bool:
            return opened.wait(30)

    monkeypatch.setattr(views, "COMMAND_SECONDS", 0.1)
    with isolated():
        register("hanging")(HangingTopic)
        try:
            assert get(client, "hanging", status=429)["code"] == "busy"
            assert not opened.is_set()
        finally:
            opened.set()
    assert get(client, "public.after")["events"] == []


def test_events_change_the_etag(client: Client, topic: str) -> None:
    first = client.get(URL, {"topic": topic})
    fill(topic, 1)
    answer = get(
        client, topic, since=first.json()["cursor"], headers={"If-None-Match": first["ETag"]}
    )
    assert seqs(answer, topic) == [1]


def join(room: str, *uids: str) -> None:
    texts = {uid: json.dumps({"id": uid}) for uid in uids}
    get_store().change_members(presence_log(room), "a", texts, [])


def listed(answer: Any, room: str) -> list[tuple[int, list[str]]]:
    return [
        (frame["version"], [member["id"] for member in frame["members"]])
        for frame in answer["frames"]
        if frame["type"] == "members" and frame["topic"] == room
    ]


def test_the_complete_list_of_members_comes_only_after_a_change(client: Client, topic: str) -> None:
    room = topic.replace("public.", "room.")
    first = get(client, room, topic)
    assert listed(first, room) == [(0, [])], "a poll under WSGI does not make its client a member"
    join(room, "user.1", "user.2")
    second = get(client, room, topic, since=first["cursor"])
    assert listed(second, room) == [(2, ["user.1", "user.2"])]
    fill(topic, 1)
    third = get(client, room, topic, since=second["cursor"])
    assert (listed(third, room), seqs(third, topic)) == ([], [1])
    get_store().change_members(presence_log(room), "a", {}, ["user.1"])
    assert listed(get(client, room, topic, since=third["cursor"]), room) == [(3, ["user.2"])]


def test_a_join_changes_the_etag(client: Client, topic: str) -> None:
    room = topic.replace("public.", "room.")
    join(room, "user.1")
    first = client.get(URL, {"topic": room})
    fields = {"since": first.json()["cursor"], "headers": {"If-None-Match": first["ETag"]}}
    get(client, room, status=304, **fields)
    join(room, "user.2")
    fields = {"since": first.json()["cursor"], "headers": {"If-None-Match": first["ETag"]}}
    assert listed(get(client, room, **fields), room) == [(2, ["user.1", "user.2"])]


@override_settings(REALTIME={"LIMITS": {"members": 2}})
def test_members_beyond_the_limit_come_as_their_number(client: Client, topic: str) -> None:
    room = topic.replace("public.", "room.")
    for uid in ("user.1", "user.2"):
        join(room, uid)
    first = get(client, room)
    assert listed(first, room) == [(2, ["user.1", "user.2"])]
    join(room, "user.3")
    second = get(client, room, since=first["cursor"])
    (frame,) = [frame for frame in second["frames"] if frame["type"] == "members"]
    assert (frame["version"], frame["count"], frame["members"]) == (3, 3, [])
    third = get(client, room, since=second["cursor"])
    assert not [frame for frame in third["frames"] if frame["type"] == "members"]


def test_many_members_come_in_several_frames(client: Client, topic: str) -> None:
    room = topic.replace("public.", "room.")
    texts = {f"user.{n}": json.dumps({"id": f"user.{n}", "info": "x" * 900}) for n in range(300)}
    get_store().change_members(presence_log(room), "a", texts, [])
    parts = [one for one in get(client, room)["frames"] if one["type"] == "members"]
    assert [one.get("more", False) for one in parts] == [True] * (len(parts) - 1) + [False]
    assert [member["id"] for one in parts for member in one["members"]] == list(texts)


@override_settings(
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
)
def test_a_compressed_answer_keeps_its_etag(client: Client, topic: str) -> None:
    fill(topic, 20)
    headers = {"Accept-Encoding": "gzip"}
    response = client.get(URL, {"topic": topic, "since": "@0"}, headers=headers)
    assert response["Content-Encoding"] == "gzip"
    since = get(client, topic, since="@0")["cursor"]
    again = client.get(
        URL, {"topic": topic, "since": since}, headers={"If-None-Match": response["ETag"]}
    )
    assert again.status_code == 304


def test_the_user_is_that_of_the_request(client: Client) -> None:
    assert get(client, "orders.1", status=403)["code"] == "forbidden"
    ada = get_user_model().objects.create_user("ada")
    client.force_login(ada)
    answer = get(client, "orders.1", f"user.{ada.pk}", "private.1")
    assert answer["frames"][0]["user"] == str(ada.pk)
    assert [frame.get("topic") for frame in answer["frames"] if frame["type"] == "error"] == [
        "private.1"
    ]


def test_another_user_gets_another_answer(client: Client, topic: str) -> None:
    first = client.get(URL, {"topic": topic})
    client.force_login(get_user_model().objects.create_user("ada"))
    assert get(client, topic, headers={"If-None-Match": first["ETag"]})["frames"]


@pytest.mark.parametrize(("url", "status", "code"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_request_gets_an_error_with_a_hint(
    client: Client, url: str, status: int, code: str
) -> None:
    response = client.get(URL + url.removeprefix("poll"))
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert body["hint"]


def test_only_get_is_answered(client: Client) -> None:
    response = client.post(URL)
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_a_page_of_another_site_is_refused(client: Client, topic: str) -> None:
    headers = {"Origin": "http://evil.example"}
    assert get(client, topic, status=403, headers=headers)["code"] == "forbidden_origin"
    get(client, topic, headers={"Origin": "http://testserver"})


@override_settings(REALTIME={"ALLOWED_ORIGINS": ["https://app.example"]})
def test_a_page_of_an_allowed_origin_can_read_the_answer(client: Client, topic: str) -> None:
    origin = {"Origin": "https://app.example"}
    answer = client.get(URL, {"topic": topic}, headers=origin)
    assert answer["Access-Control-Allow-Origin"] == "https://app.example"
    preflight = {**origin, "Access-Control-Request-Method": "GET"}
    allowed = client.options(URL, headers=preflight)
    assert (allowed.status_code, allowed.content) == (204, b"")
    assert "GET" in allowed["Access-Control-Allow-Methods"]
    foreign = {**preflight, "Origin": "https://evil.example"}
    refused = client.options(URL, headers=foreign)
    assert refused.status_code == 405
    assert "Access-Control-Allow-Origin" not in refused


def test_a_log_that_cannot_be_reached_is_503(
    client: Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heads(*args: Any) -> None:
        raise StoreUnavailable("the store", "it is down")

    monkeypatch.setattr(type(get_store()), "heads", heads)
    response = client.get(URL, {"topic": topic})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert int(response["Retry-After"]) > 0


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def wsgi_site() -> Iterator[str]:
    server: WSGIServer = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_wsgi_server_answers_polls(wsgi_site: str, topic: str) -> None:
    fill(topic, 3)
    with httpx.Client(trust_env=False) as http:
        params = {"topic": topic, "since": "@0"}
        response = http.get(f"{wsgi_site}{URL}", params=params)
        assert seqs(response.json(), topic) == [1, 2, 3]
        assert response.headers["cache-control"] == "no-store, private"
        known = {"If-None-Match": response.headers["etag"]}
        again = http.get(f"{wsgi_site}{URL}/", params=params, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        head = http.head(f"{wsgi_site}{URL}", params=params)
        assert (head.status_code, head.content) == (200, b"")
        assert json.loads(http.get(f"{wsgi_site}{URL}").content)["code"] == "bad_topic"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(OperationalError("it is down"), 503, "unavailable"), (RuntimeError("secret"), 500, "failed")],
)
def test_an_error_is_json_without_details(
    topic: str, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int, code: str
) -> None:
    def fail(*args: Any) -> None:
        raise fault

    monkeypatch.setattr(views, "_identify", fail)
    answer = get(Client(), topic, status=status)
    assert answer["code"] == code
    assert str(fault) not in json.dumps(answer)


def test_another_method_is_refused_in_json_without_a_csrf_check() -> None:
    response = Client(enforce_csrf_checks=True).post(URL)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
