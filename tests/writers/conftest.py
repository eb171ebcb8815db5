"""A loop that turns by hand, and lines on real sockets that are closed in the end."""

from collections.abc import Callable, Iterator

import pytest

from realtime.writers.flusher import Flusher
from tests.writers.lines import Line
from tests.writers.support import HandLoop


@pytest.fixture
def loop() -> HandLoop:
    return HandLoop()


@pytest.fixture
def flusher(loop: HandLoop) -> Flusher:
    return loop.flusher()


@pytest.fixture
def line(flusher: Flusher) -> Iterator[Callable[..., Line]]:
    """Make lines."""
    made: list[Line] = []

    def make(send_buffer: int = 0) -> Line:
        made.append(Line(flusher, send_buffer))
        return made[-1]

    yield make
    for each in made:
        each.close()
