"""The quota of bytes that the clients of a site can store in a day."""

import asyncio
import logging

import pytest
from django.test import override_settings

from realtime.consumers import quota as module
from realtime.consumers.quota import ROW_BYTES, ClientQuota, spend_quota
from realtime.exceptions import ProtocolError, StoreUnavailable
from realtime.stores.memory import MemoryStore

LIMIT = {"LIMITS": {"stored_client_bytes_per_day": 1_000_000}}


class CountingStore(MemoryStore):
    """Records the amounts that were taken."""

    def __init__(self) -> None:
        super().__init__("", {})
        self.taken: list[int] = []
        self.calls = 0
        self.is_down = False

    async def atake(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailable("memory", "it is down")
        if is_taken := self.take(quota, amount, limit, seconds):
            self.taken.append(amount)
        return is_taken


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> CountingStore:
    store = CountingStore()
    monkeypatch.setattr(module, "get_store", lambda: store)
    return store


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, store: CountingStore) -> list[float]:
    """The time of the process and of the store; append to move it."""
    moments = [100.0]
    monkeypatch.setattr(module, "_now", lambda: moments[-1])
    monkeypatch.setattr(store, "clock", lambda: moments[-1])
    return moments


async def count_until_refused(quota: ClientQuota, size: int) -> int:
    for count in range(1_000_000):
        try:
            await quota.spend(size)
        except ProtocolError:
            return count
    raise AssertionError("it was never refused")


@override_settings(REALTIME=LIMIT)
async def test_the_processes_of_a_site_store_no_more_than_the_quota_together(
    store: CountingStore, now: list[float]
) -> None:
    one, other = ClientQuota(store), ClientQuota(store)
    count = 0
    refused: set[ClientQuota] = set()
    while len(refused) < 2:
        for quota in {one, other} - refused:
            try:
                await quota.spend(744)
                count += 1
            except ProtocolError:
                refused.add(quota)
    assert count == 1_000
    assert sum(store.taken) == 1_000_000


@override_settings(REALTIME=LIMIT)
async def test_an_empty_event_counts_with_the_bytes_of_its_row(
    store: CountingStore, now: list[float]
) -> None:
    count = await count_until_refused(ClientQuota(store), 0)
    assert 3_000 <= count <= 1_000_000 / ROW_BYTES


@override_settings(REALTIME={})
async def test_a_thousandth_of_the_quota_is_taken_at_a_time(store: CountingStore) -> None:
    quota = ClientQuota(store)
    for _ in range(1_000):
        await quota.spend(100)
    assert store.taken == [1_073_741]


@override_settings(REALTIME=LIMIT)
async def test_concurrent_events_spend_what_they_have_taken(
    store: CountingStore, now: list[float]
) -> None:
    quota = ClientQuota(store)
    await asyncio.gather(*(quota.spend(744) for _ in range(1_000)))
    assert sum(store.taken) == 1_000_000
    with pytest.raises(ProtocolError):
        await quota.spend(744)


@override_settings(REALTIME=LIMIT)
async def test_a_refusal_names_the_quota_and_can_be_retried(
    store: CountingStore, now: list[float]
) -> None:
    quota = ClientQuota(store)
    await count_until_refused(quota, 744)
    with pytest.raises(ProtocolError) as caught:
        await quota.spend(744)
    assert caught.value.code == "rate_limited"
    assert caught.value.code.retry
    assert 'REALTIME["LIMITS"]["stored_client_bytes_per_day"]' in caught.value.reason
    assert caught.value.close_code is None


@override_settings(REALTIME=LIMIT)
async def test_a_used_up_quota_is_logged_once_and_asked_for_every_ten_seconds_until_the_next_day(
    store: CountingStore, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime")
    quota = ClientQuota(store)
    await count_until_refused(quota, 744)
    calls = store.calls
    for moment in range(100):
        now.append(100.0 + moment / 10)
        assert await count_until_refused(quota, 744) == 0
    assert store.calls == calls
    now.append(110.0)
    assert await count_until_refused(quota, 744) == 0
    assert store.calls == calls + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "stored_client_bytes_per_day" in caplog.text
    assert "Traceback" not in caplog.text
    now.append(100.0 + 86_400)
    await quota.spend(744)
    assert len(caplog.records) == 2
    assert "stored again" in caplog.records[1].message


@override_settings(REALTIME=LIMIT)
async def test_an_event_is_not_stored_while_the_counter_cannot_be_reached(
    store: CountingStore,
) -> None:
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        await ClientQuota(store).spend(1)


@override_settings(REALTIME=LIMIT)
async def test_another_store_has_a_quota_of_its_own(
    store: CountingStore, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    await spend_quota(999_000)
    with pytest.raises(ProtocolError):
        await spend_quota(999_000)
    other = CountingStore()
    monkeypatch.setattr(module, "get_store", lambda: other)
    await spend_quota(999_000)
