"""Fixtures of the hub's tests."""

from collections.abc import Iterator

import pytest

from tests.hub.support import Scene
from tests.hub.town import Town


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A hub on virtual time; at the end no task may be left and no client may have seen a hole."""
    scene = Scene()
    yield scene
    scene.close()


@pytest.fixture
def town() -> Iterator[Town]:
    """Several hubs; no visitor may have been told of a hole."""
    town = Town()
    yield town
    town.check()
    town.close()
