"""A loop that the test turns, and links on real sockets, which are closed at the end."""

from collections.abc import Callable, Iterator

import pytest

from realtime.writers.flusher import Flusher
from tests.writers.links import Link
from tests.writers.support import ManualLoop


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def flusher(loop: ManualLoop) -> Flusher:
    return loop.flusher()


@pytest.fixture
def make_link(flusher: Flusher) -> Iterator[Callable[..., Link]]:
    """Return a function that makes links."""
    made: list[Link] = []

    def make(send_buffer: int = 0) -> Link:
        made.append(Link(flusher, send_buffer))
        return made[-1]

    yield make
    for each in made:
        each.close()
