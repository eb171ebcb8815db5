"""with_realtime() serves its own paths and passes on everything else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application
from django.http import Http404, HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from realtime import routing
from realtime.asgi import with_realtime
from realtime.hub import get_hub


def scope(path: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"evil.example")],
        **fields,
    }


async def first_answer(application: Any, scope: dict[str, Any]) -> dict[str, Any]:
    client = ApplicationCommunicator(application, scope)
    await client.send_input({"type": "websocket.connect"})
    answer: dict[str, Any] = await client.receive_output(5)
    await client.wait(5)
    return answer


async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the type and the path of the scope."""
    await send({"type": "inner", "scope": scope["type"], "path": scope.get("path")})


@pytest.mark.parametrize("path", ["/chat/", "/realtime/ws2", "/realtime/", "/x/realtime/ws", "/"])
async def test_other_websockets_are_passed_on(path: str) -> None:
    answer = await first_answer(with_realtime(inner), scope(path))
    assert (answer["type"], answer["path"]) == ("inner", path)


@pytest.mark.parametrize("kind", ["http", "lifespan", "something.else"])
async def test_other_scope_types_are_passed_on(kind: str) -> None:
    answer = await first_answer(with_realtime(inner), scope("/realtime/ws") | {"type": kind})
    assert (answer["type"], answer["scope"]) == ("inner", kind)


async def starts(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer both events of a lifespan."""
    for _ in range(2):
        event = await receive()
        await send({"type": f"{event['type']}.complete", "by": "inner"})


@pytest.mark.parametrize(("inner", "by"), [(get_asgi_application(), None), (starts, "inner")])
async def test_the_hub_closes_when_the_server_stops(inner: Any, by: str | None) -> None:
    client = ApplicationCommunicator(with_realtime(inner), {"type": "lifespan"})
    await client.send_input({"type": "lifespan.startup"})
    answer = await client.receive_output(5)
    assert (answer["type"], answer.get("by")) == ("lifespan.startup.complete", by)
    with override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}}):
        hub = get_hub()
        assert await hub.member_writer.node.beat()
        await client.send_input({"type": "lifespan.shutdown"})
        answer = await client.receive_output(5)
        assert (answer["type"], answer.get("by")) == ("lifespan.shutdown.complete", by)
        assert hub.store.nodes() == []
    await client.wait(5)


async def test_an_application_that_cannot_start_says_so() -> None:
    async def broken(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no settings")

    client = ApplicationCommunicator(with_realtime(broken), {"type": "lifespan"})
    await client.send_input({"type": "lifespan.startup"})
    with pytest.raises(ValueError, match="no settings"):
        await client.wait(5)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_without_asyncio_raises_an_error_that_names_the_remedy(kind: str) -> None:
    serving = with_realtime(inner)(scope("/realtime/ws") | {"type": kind}, None, None)
    with pytest.raises(RuntimeError, match=r"needs asyncio.* --worker-class asyncio"):
        serving.send(None)  # type: ignore[attr-defined]


# Paths below the prefix that match no endpoint


def own(request: HttpRequest) -> HttpResponse:
    if "missing" in request.GET:
        raise Http404("no such order")
    return HttpResponse("the project's own")


urlpatterns = [path("realtime/own/", own)]


async def get(url: str, application: Any, **fields: Any) -> tuple[int, str, dict[str, str]]:
    """Return the status, the body and the headers of an answer."""
    where, _, query = url.partition("?")
    http = {"type": "http", "method": "GET", "scheme": "http", "query_string": query.encode()}
    client = ApplicationCommunicator(application, {**scope(where), **http, **fields})
    await client.send_input({"type": "http.request", "body": b""})
    start = await client.receive_output(5)
    body = b""
    more = True
    while more:
        message = await client.receive_output(5)
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await client.wait(5)
    assert await client.receive_nothing()
    return (
        start["status"],
        body.decode(),
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
    )


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "where", ["/realtime/nope", "/realtime/", "/realtime/sse/x", "/realtime/own/x", "/realtime"]
)
async def test_an_unknown_path_below_the_prefix_is_answered_in_json(
    where: str, debug: bool
) -> None:
    with override_settings(ROOT_URLCONF=__name__, DEBUG=debug):
        status, body, headers = await get(where, with_realtime(get_asgi_application()))
    assert (status, headers["content-type"]) == (404, "application/json")
    error = json.loads(body)
    assert (error["type"], error["code"], error["retry"]) == ("error", "not_found", False)
    assert where in error["message"]
    assert "ws, sse, poll or send below /realtime/" in error["hint"]


@override_settings(ROOT_URLCONF=__name__)
async def test_an_http_request_to_the_websocket_path_gets_a_hint() -> None:
    status, body, _ = await get("/realtime/ws", with_realtime(get_asgi_application()))
    assert status == 404
    assert "is for WebSockets" in json.loads(body)["message"]
    assert "Upgrade" in json.loads(body)["hint"]


@override_settings(ROOT_URLCONF=__name__)
async def test_the_projects_pages_below_the_prefix_are_served() -> None:
    application = with_realtime(get_asgi_application())
    status, body, _ = await get("/realtime/own/", application)
    assert (status, body) == (200, "the project's own")
    status, body, headers = await get("/realtime/own/?missing", application)
    assert (status, headers["content-type"].partition(";")[0]) == (404, "text/html")
    status, body, headers = await get("/elsewhere/", application)
    assert (status, headers["content-type"].partition(";")[0]) == (404, "text/html")


async def test_pages_of_another_application_below_the_prefix_are_served() -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    status, body, _ = await get("/realtime/x", with_realtime(other))
    assert (status, body) == (200, "a/realtime/x")


async def test_websockets_that_plain_django_cannot_serve_are_closed_before_the_accept() -> None:
    answer = await first_answer(with_realtime(get_asgi_application()), scope("/chat/"))
    assert answer["type"] == "websocket.close"


# Code 4403 comes from the consumer, which refuses the host of the scope.


@override_settings(ALLOWED_HOSTS=["shop.example"])
@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/realtime/ws"},
        {"path": "/realtime/ws/"},
        {"path": "/site/realtime/ws", "root_path": "/site"},
        {"path": "/realtime/ws", "root_path": "/site"},  # as Daphne passes it
    ],
)
async def test_the_endpoint_is_found_with_and_without_a_root_path(fields: dict[str, str]) -> None:
    answer = await first_answer(with_realtime(inner), scope(**fields))
    assert answer == {"type": "websocket.close", "code": 4403}


@override_settings(ALLOWED_HOSTS=["shop.example"], FORCE_SCRIPT_NAME="/app")
@pytest.mark.parametrize("path", ["/app/realtime/ws", "/realtime/ws"])
async def test_the_endpoint_is_found_below_a_forced_script_name(path: str) -> None:
    answer = await first_answer(with_realtime(inner), scope(path, root_path="/ignored"))
    assert answer == {"type": "websocket.close", "code": 4403}


@override_settings(FORCE_SCRIPT_NAME="/app")
async def test_a_script_name_ends_at_a_slash() -> None:
    status, _, _ = await get("/apple/realtime/poll", with_realtime(get_asgi_application()))
    assert status == 404


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, without the paths that other tests have asked for."""
    routing._logged.clear()
    yield caplog
    routing._logged.clear()


async def test_a_websocket_below_another_path_is_logged_once_with_the_remedy(logged: Any) -> None:
    application = with_realtime(get_asgi_application())
    for other in ("/shop/realtime/ws", "/shop/realtime/ws/", "/shop/realtime/wsx", "/ws"):
        assert (await first_answer(application, scope(other)))["type"] == "websocket.close"
    (record,) = logged.records
    assert "below '/shop', set FORCE_SCRIPT_NAME" in record.getMessage()


async def test_a_root_path_that_is_put_in_front_twice_is_logged_with_its_own_remedy(
    logged: Any,
) -> None:
    wrong = scope("/app/app/realtime/ws", root_path="/app")
    await first_answer(with_realtime(get_asgi_application()), wrong)
    (record,) = logged.records
    assert "both put '/app' in front" in record.getMessage()


async def test_clients_cannot_fill_the_log_or_forge_lines_of_it(logged: Any) -> None:
    application = with_realtime(get_asgi_application())
    for number in range(3 * routing.MAX_LOGGED):
        await first_answer(application, scope(f"/{number}\nforged/realtime/ws"))
    assert len(logged.records) == routing.MAX_LOGGED
    assert not any("\n" in record.getMessage() for record in logged.records)


@override_settings(ALLOWED_HOSTS=["shop.example"], REALTIME={"PREFIX": "live/events/"})
async def test_the_prefix_is_a_setting() -> None:
    answer = await first_answer(with_realtime(inner), scope("/live/events/ws"))
    assert answer["code"] == 4403
    answer = await first_answer(with_realtime(inner), scope("/realtime/ws"))
    assert answer["type"] == "inner"


@override_settings(ALLOWED_HOSTS=["shop.example"])
async def test_the_url_patterns_work_in_a_router_of_the_project() -> None:
    from realtime.routing import websocket_urlpatterns

    answer = await first_answer(URLRouter(websocket_urlpatterns), scope("/realtime/ws"))
    assert answer["code"] == 4403


def test_it_can_be_imported_before_django_is_set_up() -> None:
    code = "from realtime.asgi import with_realtime; with_realtime(None)"
    subprocess.run([sys.executable, "-c", code], check=True, env={})


async def test_a_communicator_of_channels_is_told_to_use_our_client() -> None:
    application = with_realtime(get_asgi_application())
    with pytest.raises(RuntimeError, match=r"realtime\.testing\.RealtimeClient"):
        await WebsocketCommunicator(application, "/realtime/ws").connect()


async def test_a_real_handshake_from_a_foreign_page_is_closed_and_raises_nothing() -> None:
    headers = [(b"host", b"127.0.0.1"), (b"origin", b"https://evil.example")]
    application = with_realtime(get_asgi_application())
    communicator = WebsocketCommunicator(application, "/realtime/ws", headers)
    assert await communicator.connect() == (False, 4403)
