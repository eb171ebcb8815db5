"""The contract of the transports, on a real Daphne."""

from collections.abc import Iterator

import pytest

from tests.consumers.contract import TRANSPORTS, Follower, TransportContract
from tests.support.server import Publisher, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application = "tests.consumers.application:application"
    with Server(tmp_path_factory.mktemp("contract"), application=application) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    publisher = Publisher(server)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def ada(server: Server) -> dict[str, str]:
    return server.sign_in("ada")


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> type[Follower]:
    chosen: type[Follower] = request.param
    return chosen


class TestTransports(TransportContract):
    pass
