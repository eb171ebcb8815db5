"""Fixtures of the hub's tests."""

from collections.abc import Iterator

import pytest

from tests.hub.cluster import Cluster
from tests.hub.support import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A hub on virtual time; fails at the end if a task is left or a client has seen a gap."""
    scene = Scene()
    yield scene
    scene.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Several hubs; fails at the end if a visitor has seen a gap in the versions."""
    cluster = Cluster()
    yield cluster
    cluster.check()
    cluster.close()
