"""The cursor before a topic's first event changes with time, and logs are forgotten."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from realtime.stores import base
from realtime.stores.base import Retention
from tests.hub.support import TOPIC, Scene

LaterBy = Callable[[int], None]


@pytest.fixture
def later_by(monkeypatch: pytest.MonkeyPatch) -> LaterBy:
    """Let fortnights pass."""
    now = base._period()

    def later_by(periods: int) -> None:
        monkeypatch.setattr(base, "_period", lambda: now + periods)

    return later_by


def forget(scene: Scene) -> None:
    scene.store.trim(TOPIC, Retention(0, 1.0, forget_after=0.0))
    assert TOPIC not in set(scene.store.topics())


def test_no_follower_is_reset_and_nothing_is_read_because_months_passed(
    scene: Scene, later_by: LaterBy
) -> None:
    client = scene.join()
    for periods in range(1, 7):
        later_by(periods)
        scene.advance(10.0)  # the head is checked
        assert scene.live.position == scene.head
    assert scene.store.calls.count("read") == 0
    scene.publish(2)
    assert client.seqs() == [1, 2]
    assert client.resets() == []
    assert scene.store.calls.count("read") == 0


@pytest.mark.parametrize("periods", [1, -1])
def test_the_first_event_arrives_at_once_from_a_node_whose_fortnight_is_another(
    scene: Scene, later_by: LaterBy, periods: int
) -> None:
    client = scene.join()
    later_by(periods)
    scene.publish()
    assert client.seqs() == [1]
    assert scene.store.calls.count("read") == 0


def test_a_client_that_was_away_for_a_fortnight_goes_live_without_a_read(
    scene: Scene, later_by: LaterBy
) -> None:
    scene.join()
    start = scene.head
    later_by(1)
    scene.advance(10.0)
    client = scene.join(start)
    assert client.view.resets == 0
    assert scene.store.calls.count("read") == 0
    assert scene.live.live  # it does not go on to catch up
    scene.publish(2)
    assert client.seqs() == [1, 2]


def test_a_client_that_fell_behind_before_the_first_event_catches_up_a_fortnight_later(
    scene: Scene, later_by: LaterBy
) -> None:
    scene.join()
    start = scene.head
    later_by(1)
    scene.publish(3)
    client = scene.join(start)
    assert client.view.resets == 0
    assert client.seqs() == [1, 2, 3]


@pytest.mark.parametrize("published", [0, 2])
def test_a_client_that_was_away_for_more_than_four_weeks_is_reset_once(
    scene: Scene, later_by: LaterBy, published: int
) -> None:
    scene.join()
    start = scene.head
    later_by(2)
    scene.advance(10.0)
    scene.publish(published)
    client = scene.join(start)
    assert client.view.resets == 1
    scene.publish()
    scene.advance(10.0)
    assert client.seqs() == [published + 1]
    assert client.view.resets == 1


def test_a_forged_beginning_is_refused_though_the_hub_knows_the_topic(scene: Scene) -> None:
    scene.join()
    start = scene.head
    client = scene.join(replace(start, tag=start.tag ^ 1))
    assert client.view.resets == 1


@pytest.mark.parametrize("published", [0, 1, 3, 5])
def test_followers_of_a_forgotten_log_are_reset_once_and_get_the_events_of_the_new_one(
    scene: Scene, published: int
) -> None:
    client = scene.join()
    scene.publish(3)
    forget(scene)
    scene.publish(published)
    scene.advance(10.0)
    assert client.resets() == ["restarted"]
    before = len(client.seqs())
    scene.publish(2)
    assert client.seqs()[before:] == [published + 1, published + 2]


def test_a_client_that_comes_back_to_a_forgotten_log_is_reset_once(scene: Scene) -> None:
    scene.publish(3)
    last = scene.head
    forget(scene)
    scene.publish(4)
    client = scene.join(last)
    assert client.view.resets == 1
    scene.publish()
    scene.advance(10.0)
    assert client.seqs() == [5]
    assert client.view.resets == 1
