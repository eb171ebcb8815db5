"""Fixtures of the hub's tests."""

from collections.abc import Iterator

import pytest

from tests.hub.cluster import Cluster
from tests.hub.support import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A hub on virtual time; at the end no task may be left and no client may have seen a hole."""
    scene = Scene()
    yield scene
    scene.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Several hubs; no visitor may have been told of a hole."""
    cluster = Cluster()
    yield cluster
    cluster.check()
    cluster.close()
