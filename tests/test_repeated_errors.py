"""Errors that clients can cause: one traceback a minute, then a count."""

import logging

import pytest

from realtime import repeated_errors
from realtime.consumers.http import error_response
from realtime.exceptions import StoreUnavailable
from realtime.repeated_errors import log_error
from tests.support.waiting import await_until


def test_an_error_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        log_error("orders", ValueError(number), "%s failed", "orders.1")
    (record,) = caplog.records
    assert record.getMessage() == "orders.1 failed"
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_other_places_and_other_errors_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    for where in ("orders", "rooms"):
        for error in (ValueError(), KeyError()):
            log_error(where, error, "failed")
    assert len(caplog.records) == 4


def test_after_a_minute_the_error_is_logged_again_with_the_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(975):
        log_error("orders", ValueError(), "it failed")
    monkeypatch.setattr(repeated_errors, "PERIOD_SECONDS", 0.0)
    log_error("orders", ValueError(), "it failed")
    assert [record.getMessage() for record in caplog.records] == [
        "it failed",
        "it failed: 974 more times with ValueError",
        "it failed",
    ]


async def test_the_count_is_logged_even_if_the_error_does_not_come_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_errors, "PERIOD_SECONDS", 0.01)
    log_error("orders", ValueError(), "it failed")
    monkeypatch.setattr(repeated_errors, "PERIOD_SECONDS", 60.0)
    log_error("orders", ValueError(), "it failed")
    await await_until(lambda: len(caplog.records) == 2, "the count is logged", 10.0)
    assert caplog.messages == ["it failed", "it failed: 1 more times with ValueError"]
    log_error("orders", ValueError(), "it failed")
    assert len(caplog.records) == 3


def test_the_number_of_kinds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_errors, "MAX_KEYS", 3)
    for where in range(10):
        log_error(where, ValueError(), "failed")
    assert len(repeated_errors._periods) == 3


def test_requests_that_cannot_reach_the_log_are_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(100):
        assert error_response(StoreUnavailable("RedisStore", "away")).status == 503
    assert caplog.messages == ["a request could not be answered"]
