"""The contract with the memory store, and tests of its own behaviour."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime.protocol.events import Draft
from realtime.stores.base import Store
from realtime.stores.memory import MemoryStore
from tests.stores.contract import StoreContract


class ShiftedStore(MemoryStore):
    """A memory store whose clock a test can move."""

    shift = 0.0

    def clock(self) -> float:
        return super().clock() + self.shift


class TestMemoryStore(StoreContract):
    examples = 300
    moves_clock = True

    @pytest.fixture
    def store(self) -> ShiftedStore:
        return ShiftedStore()

    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        assert isinstance(store, ShiftedStore)
        store.shift += seconds


def test_each_memory_store_has_its_own_logs_and_store_id() -> None:
    first, second = MemoryStore(), MemoryStore()
    first.append("t", [Draft("x", "1")])
    assert list(second.topics()) == []
    assert first.heads(["t"])["t"].epoch != second.heads(["t"])["t"].epoch


def test_the_memory_store_declares_its_capabilities() -> None:
    assert not MemoryStore.durable
    assert not MemoryStore.shared
    assert MemoryStore().alias is None
    assert not MemoryStore.supports_claims
    with pytest.raises(NotImplementedError, match="MemoryStore cannot append in the transaction"):
        MemoryStore().append_claimed("t", list)


@pytest.mark.parametrize("arguments", [("redis://", {}), ("", {"size": 3})])
def test_the_memory_store_refuses_locations_and_options(arguments: tuple[str, dict]) -> None:
    with pytest.raises(ImproperlyConfigured, match="MemoryStore takes no"):
        MemoryStore(*arguments)
