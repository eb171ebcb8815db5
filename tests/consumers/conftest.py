"""The HTTP transports on a hub with virtual time, without a server."""

from collections.abc import Iterator

import pytest

from tests.consumers.exchange import Web
from tests.hub.support import Scene


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Requests to the transports; afterwards no connection, follower or task may be left."""
    scene = Scene()
    monkeypatch.setattr("realtime.consumers.sse.get_hub", lambda: scene.hub)
    monkeypatch.setattr("realtime.consumers.poll.get_hub", lambda: scene.hub)
    web = Web(scene)
    yield web
    web.close()
