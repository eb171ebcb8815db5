"""An outage is logged once when it begins and once when it is over."""

import logging

import pytest

from realtime.exceptions import StoreUnavailable
from realtime.outage import Outage


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_an_outage_is_logged_at_its_first_failure_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("it fails: %s", "it works again")
    for _ in range(3):
        outage.failed(StoreUnavailable("Store", "away"))
    assert outage.is_on
    outage.over()
    outage.over()
    assert not outage.is_on
    assert texts(caplog) == ["it fails: Store is not available: away", "it works again"]


def test_a_second_outage_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("it fails: %s")
    for _ in range(2):
        outage.failed(ValueError("x"))
        outage.over()
    assert texts(caplog) == ["it fails: x"] * 2


def test_each_wait_is_twice_the_one_before_until_a_success() -> None:
    outage = Outage("%s", backoff=(0.5, 3.0))
    assert [outage.failed(OSError()) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    outage.over()
    assert outage.failed(OSError()) == 0.5


def test_only_an_unexpected_error_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Outage("%s", level=logging.ERROR).failed(StoreUnavailable("Store", "away"))
    Outage("%s").failed(ValueError("x"))
    expected, unexpected = caplog.records
    assert (expected.exc_info, expected.levelno) == (None, logging.ERROR)
    assert unexpected.exc_info is not None
    assert unexpected.exc_info[1] is not None


def test_levels_logger_and_expected_errors_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(
        "%s",
        "over",
        level=logging.INFO,
        ends_level=logging.DEBUG,
        expected=Exception,
        logger=logging.getLogger("realtime.layers"),
    )
    with caplog.at_level(logging.DEBUG, "realtime.layers"):
        outage.failed(ValueError("x"))
        outage.over()
    assert caplog.record_tuples == [
        ("realtime.layers", logging.INFO, "x"),
        ("realtime.layers", logging.DEBUG, "over"),
    ]
    assert caplog.records[0].exc_info is None


def test_failures_are_counted_until_a_success() -> None:
    outage = Outage("%s")
    outage.failed(OSError())
    outage.failed(OSError())
    assert outage.failures == 2
    outage.over()
    assert outage.failures == 0
