"""`POST send`: which commands are accepted, and the answer to each refusal."""

import asyncio
import json
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.auth.users import Identity
from realtime.consumers import rate_limits
from realtime.consumers import send as module
from realtime.consumers.send import send_command
from tests.consumers.exchange import Exchange, scope_of
from tests.support.server import DEADLINE

JSON = {"Content-Type": "application/json"}
PUBLISH = {"type": "publish", "id": 1, "topic": "orders.1", "event": "typing", "data": None}
CALL = {"type": "call", "id": 2, "topic": "public.a", "action": "rename"}


@pytest.fixture(autouse=True)
def fresh_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    for limiter in (rate_limits._commands, rate_limits._published):
        monkeypatch.setattr(limiter, "_buckets", OrderedDict())


async def post(
    body: Any, headers: dict[str, str] = JSON, method: str = "POST", client: str = "10.0.0.1"
) -> Exchange:
    parts = [body] if isinstance(body, bytes) else [json.dumps(body).encode()]
    exchange = Exchange(send_command, scope_of("send", method, headers, client), *parts)
    async with asyncio.timeout(10):
        await exchange.task
    return exchange


BAD = [
    (b"{", 400, "bad_json"),
    (b"\xff", 400, "bad_json"),
    (b"", 400, "bad_json"),
    (b"[]", 400, "bad_frame"),
    ({"type": "dance"}, 400, "unknown_type"),
    ({"type": "subscribe", "topic": "public.a"}, 400, "unsupported"),
    ({"type": "ping"}, 400, "unsupported"),
    ({"type": "auth", "token": "x"}, 400, "unsupported"),
    ({**PUBLISH, "topic": "a b"}, 400, "bad_topic"),
    ({**PUBLISH, "event": "a\r\nid: 7"}, 400, "bad_frame"),
    (PUBLISH, 403, "forbidden"),
    ({**PUBLISH, "topic": "no.such"}, 403, "forbidden"),
    ({**CALL, "topic": "private.1"}, 403, "forbidden"),
    (CALL, 404, "unknown_action"),
    (b'{"type":"ping","x":"' + b"x" * 70_000 + b'"}', 413, "too_large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=lambda value: str(value)[:50])
async def test_a_bad_command_gets_an_error_with_a_hint(body: Any, status: int, code: str) -> None:
    answer = await post(body)
    error = answer.json()
    assert (answer.status, error["code"], error["type"]) == (status, code, "error")
    assert error["message"]
    assert error["hint"]
    assert answer.headers["cache-control"] == "no-store, private"


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
     "application/json-patch+json", "text/plain, application/json"],
)  # fmt: skip
async def test_only_json_is_accepted(kind: str | None) -> None:
    """A page of another site can send the other types without a preflight request."""
    answer = await post(PUBLISH, {} if kind is None else {"Content-Type": kind})
    assert answer.status == 415
    assert "application/json" in answer.json()["hint"]


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF8",
     'application/json; profile=x; Charset="UTF-8"', "application/json; charset=us-ascii"],
)  # fmt: skip
async def test_the_content_type_can_have_parameters(kind: str) -> None:
    assert (await post(CALL, {"Content-Type": kind})).status == 404


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-16", 'application/json; a=b; charset="latin-1"',
     "application/json; charset=", "application/json; charset=utf-8, text/plain"],
)  # fmt: skip
async def test_json_in_another_charset_is_refused(kind: str) -> None:
    answer = await post(CALL, {"Content-Type": kind})
    assert answer.status == 415
    assert answer.json()["hint"] == "send JSON in UTF-8"


@pytest.mark.parametrize("hosts", [[], ["testserver", "testserver"]])
async def test_a_request_without_exactly_one_host_is_refused(hosts: list[str]) -> None:
    scope = scope_of("send", "POST", JSON)
    others = [header for header in scope["headers"] if header[0] != b"host"]
    scope["headers"] = others + [(b"host", host.encode()) for host in hosts]
    exchange = Exchange(send_command, scope, json.dumps(CALL).encode())
    await exchange.task
    assert (exchange.status, exchange.json()["code"]) == (400, "bad_host")
    assert "Host" in exchange.json()["hint"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
async def test_only_post_is_answered(method: str) -> None:
    answer = await post(PUBLISH, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),  # not a browser, and without a cookie
        ({"Origin": "http://testserver"}, 404),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Cookie": "sessionid=abc"}, 403),
        ({"Cookie": "other=abc"}, 404),
        ({"Cookie": "sessionid=abc", "Origin": "https://testserver"}, 403),
    ],
)
async def test_a_cookie_is_accepted_only_from_a_page_of_the_site(
    headers: dict[str, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(scope: Any) -> None:
        return None

    monkeypatch.setattr("realtime.auth.users.user_of", nobody)
    assert (await post(CALL, {**JSON, **headers})).status == status


async def test_a_body_in_parts_is_one_command_and_is_bounded() -> None:
    text = json.dumps(CALL).encode()
    parts = [text[:10], b"", text[10:]]
    exchange = Exchange(send_command, scope_of("send", "POST", JSON), *parts)
    await exchange.task
    assert exchange.status == 404
    exchange = Exchange(send_command, scope_of("send", "POST", JSON), *[b"x" * 10_000] * 20)
    await exchange.task
    assert exchange.status == 413
    assert exchange.inbox.qsize() == 13, "it reads only up to the limit and one part more"


@pytest.mark.parametrize("length", ["65537", "100000000", "9" * 5_000])
async def test_a_body_with_a_too_large_content_length_is_not_read(length: str) -> None:
    scope = scope_of("send", "POST", {**JSON, "Content-Length": length})
    exchange = Exchange(send_command, scope, b"x", b"x")
    await exchange.task
    assert (exchange.status, exchange.json()["code"]) == (413, "too_large")
    assert exchange.inbox.qsize() == 2


@pytest.mark.parametrize("length", ["7", "", "many", "²", "-1", "1, 1"])
async def test_the_body_is_measured_whatever_its_content_length(length: str) -> None:
    assert (await post(CALL, {**JSON, "Content-Length": length})).status == 404
    answer = await post(b"x" * 70_000, {**JSON, "Content-Length": length})
    assert answer.status == 413


async def test_a_body_that_does_not_arrive_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realtime.consumers.http.BODY_SECONDS", 0.01)
    exchange = Exchange(send_command, scope_of("send", "POST", JSON), b'{"type":', b"")
    exchange.inbox.get_nowait()
    exchange.inbox.get_nowait()
    exchange.inbox.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    async with asyncio.timeout(DEADLINE):
        await exchange.task
    error = exchange.json()
    assert (exchange.status, error["code"], error["retry"]) == (408, "body_timeout", True)
    assert error["hint"]


async def test_a_client_that_leaves_before_its_body_is_complete_gets_no_answer() -> None:
    exchange = Exchange(send_command, scope_of("send", "POST", JSON), b'{"type":', b"")
    exchange.inbox.get_nowait()
    exchange.inbox.get_nowait()
    exchange.leave()
    await exchange.task
    assert exchange.sent == []


async def test_a_client_that_sends_too_fast_gets_429_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "_now", lambda: 100.0)
    statuses = [(await post(CALL)).status for _ in range(201)]
    assert statuses[:200] == [404] * 200
    assert statuses[200] == 429
    monkeypatch.setattr(rate_limits, "_now", lambda: 100.03)  # 50 a second in the long run
    assert (await post(CALL)).status == 404
    answer = await post(CALL)
    assert answer.json()["retry"] is True
    assert int(answer.headers["retry-after"]) > 0
    assert (await post(CALL, client="10.0.0.2")).status == 404


async def test_the_number_of_remembered_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CLIENTS", 3)
    for number in range(10):
        await post(CALL, client=f"10.0.0.{number}")
    assert len(rate_limits._commands._buckets) == 3


async def test_an_error_inside_an_action_is_answered_with_500(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*args: Any) -> str:
        return b"\xff".decode()

    monkeypatch.setattr(module, "run_call", broken)
    answer = await post(CALL)
    assert (answer.status, answer.json()["code"]) == (500, "failed")


async def test_a_call_runs_as_the_user_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def identify(self: Any) -> Identity:
        return Identity(SimpleNamespace(is_authenticated=True, pk=7))

    monkeypatch.setattr("realtime.consumers.http.Request.identify", identify)
    data = {"deep": ["é", None, 1.5]}
    answer = await post({**CALL, "topic": "orders.1", "action": "echo", "data": data})
    assert answer.status == 200
    assert answer.json() == {"type": "result", "id": 2, "data": data}
    assert list(rate_limits._commands._buckets) == ["user 7"]
