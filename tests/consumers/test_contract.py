"""The contract of the transports, on a real Daphne."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from tests.consumers.contract import TRANSPORTS, Follower, TransportContract
from tests.support.server import DEADLINE, Publisher, Server

LISTED = 2  # members that are sent as a list


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application = "tests.consumers.application:application"
    folder = tmp_path_factory.mktemp("contract")
    settings = {"REALTIME": {"LIMITS": {"members": LISTED}}}
    with Server(folder, application=application, settings=settings) as running:
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
    async def test_members_are_a_number_while_they_are_too_many_for_a_list(
        self, transport: type[Follower], server: Server, ada: dict[str, str]
    ) -> None:
        topic = f"room.crowd-{transport.__name__}"
        async with transport.follow(server.site, topic, None, ada) as follower:
            await follower.wait_for_members("ada")
            async with AsyncExitStack() as stack:
                for name in ("bob", "cid"):
                    headers = server.sign_in(name)
                    await stack.enter_async_context(
                        transport.follow(server.site, topic, None, headers)
                    )
                async with asyncio.timeout(DEADLINE):
                    while follower.count != LISTED + 1:
                        await follower.listen()
                assert follower.members == {}
                answer = await transport.command(server.site, ada, type="members", topic=topic)
                assert (answer["count"], answer["members"]) == (LISTED + 1, [])
            await follower.wait_for_members("ada")
            assert follower.count is None
            assert not follower.was_reset
