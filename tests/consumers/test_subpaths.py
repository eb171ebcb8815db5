"""All transports of a site below a path, in each layout of docs/subpaths.md."""

import asyncio
from pathlib import Path

import pytest
import websockets

from tests.support.http import Refused, get_poll, http_client, open_stream, post_command
from tests.support.server import Server
from tests.support.subpaths import LAYOUTS, site_below_path


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_an_event_arrives_below_the_path_on_every_transport(
    layout: str, tmp_path: Path
) -> None:
    topic = "public.subpaths"
    with site_below_path(layout, tmp_path) as site:
        socket_url = site.url.replace("http", "ws", 1)
        async with (
            http_client() as http,
            websockets.connect(f"{socket_url}/realtime/ws?v=1", origin=site.origin) as socket,
        ):
            cursor = (await get_poll(http, site.url, topic))["cursor"]
            assert '"welcome"' in str(await socket.recv())
            await socket.send(f'{{"type": "subscribe", "id": 1, "topic": "{topic}"}}')
            assert '"subscribed"' in str(await socket.recv())
            async with open_stream(site.url, topic) as stream:
                await stream.receive()
                polling = asyncio.create_task(
                    get_poll(http, site.url, topic, since=cursor, wait=20)
                )
                await asyncio.to_thread(site.server.publish, topic, 1)
                assert '"event"' in str(await socket.recv())
                assert len(await stream.events(1)) == 1
                assert len((await polling)["events"]) == 1
            command = {"type": "publish", "topic": topic, "event": "x", "data": None}
            with pytest.raises(Refused) as refused:  # by the endpoint for commands
                await post_command(http, site.url, {"Origin": site.origin}, **command)
            assert refused.value.body["code"] == "forbidden"
            admin = await http.get(f"{site.url}/admin/realtime/logevent/add/")
            assert admin.headers["location"].startswith("/app/admin/login/")


@pytest.mark.parametrize(
    ("settings", "path"),
    [({}, "/realtime/"), ({"REALTIME": {"TRUSTED_PROXIES": ["127.0.0.1"]}}, "/app/realtime/")],
    ids=["from any client", "from a trusted proxy"],
)
async def test_a_root_path_of_a_header_counts_only_from_a_trusted_proxy(
    settings: dict[str, object], path: str, tmp_path: Path
) -> None:
    with Server(tmp_path, settings=settings) as server:
        async with http_client() as http:
            forged = "//evil.example" if path == "/realtime/" else "/app"
            headers = {"Daphne-Root-Path": forged}
            first = await http.get(f"{server.site}/elements/", headers=headers)
            later = await http.get(f"{server.site}/elements/")
            admin = f"{server.site}/admin/realtime/logevent/add/"
            login = (await http.get(admin, headers=headers)).headers["location"]
    assert f'data-realtime-url="{path}"' in first.text
    assert 'data-realtime-url="/realtime/"' in later.text
    assert "evil.example" not in first.text + later.text + login
