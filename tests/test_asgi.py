"""with_realtime(): its own paths are served, everything else passes through."""

import subprocess
import sys
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.routing import URLRouter
from django.core.asgi import get_asgi_application
from django.test import override_settings

from realtime.asgi import with_realtime


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
    """Answer with what it was called for."""
    await send({"type": "inner", "scope": scope["type"], "path": scope.get("path")})


@pytest.mark.parametrize("path", ["/chat/", "/realtime/ws2", "/realtime/", "/x/realtime/ws", "/"])
async def test_other_websockets_are_the_applications(path: str) -> None:
    answer = await first_answer(with_realtime(inner), scope(path))
    assert (answer["type"], answer["path"]) == ("inner", path)


@pytest.mark.parametrize("kind", ["http", "lifespan", "something.else"])
async def test_other_types_are_the_applications(kind: str) -> None:
    answer = await first_answer(with_realtime(inner), scope("/realtime/ws") | {"type": kind})
    assert (answer["type"], answer["scope"]) == ("inner", kind)


async def test_websockets_that_plain_django_cannot_serve_are_closed_before_the_accept() -> None:
    answer = await first_answer(with_realtime(get_asgi_application()), scope("/chat/"))
    assert answer["type"] == "websocket.close"


# The consumer is reached where the refusal of this scope's host is its own.


@override_settings(ALLOWED_HOSTS=["shop.example"])
@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/realtime/ws"},
        {"path": "/realtime/ws/"},
        {"path": "/site/realtime/ws", "root_path": "/site"},
        {"path": "/realtime/ws", "root_path": "/site"},  # as Daphne has it
    ],
)
async def test_the_endpoint_is_found_with_and_without_a_root_path(fields: dict[str, str]) -> None:
    answer = await first_answer(with_realtime(inner), scope(**fields))
    assert answer == {"type": "websocket.close", "code": 4403}


@override_settings(ALLOWED_HOSTS=["shop.example"], REALTIME={"PREFIX": "live/events/"})
async def test_the_prefix_is_a_setting() -> None:
    answer = await first_answer(with_realtime(inner), scope("/live/events/ws"))
    assert answer["code"] == 4403
    answer = await first_answer(with_realtime(inner), scope("/realtime/ws"))
    assert answer["type"] == "inner"


@override_settings(ALLOWED_HOSTS=["shop.example"])
async def test_the_url_patterns_serve_a_router_of_the_projects() -> None:
    from realtime.routing import websocket_urlpatterns

    answer = await first_answer(URLRouter(websocket_urlpatterns), scope("/realtime/ws"))
    assert answer["code"] == 4403


def test_it_can_be_imported_before_django_is_set_up() -> None:
    code = "from realtime.asgi import with_realtime; with_realtime(None)"
    subprocess.run([sys.executable, "-c", code], check=True, env={})
