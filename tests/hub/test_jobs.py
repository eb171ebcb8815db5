"""Jobs: one run at a time, a failed run ends nothing and is logged once."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from realtime.exceptions import StoreUnavailable
from realtime.hub.jobs import TICK_SECONDS, Job
from tests.hub.support import TOPIC, Scene


class Work:
    """Work that fails and waits on demand."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def test_a_failing_job_goes_on_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    work.error = ValueError("broken")
    scene.hub.jobs.add(work, "it failed", every=TICK_SECONDS)
    scene.advance(20 * TICK_SECONDS)
    assert work.runs >= 15
    assert caplog.messages.count("it failed: broken") == 1
    work.error = None
    scene.advance(2 * TICK_SECONDS)
    work.error = StoreUnavailable("Store", "away")
    scene.advance(2 * TICK_SECONDS)
    assert "it failed: Store is not available: away" in caplog.messages


def test_a_job_runs_once_at_a_time(scene: Scene) -> None:
    work = Work()
    work.gate.clear()
    job = scene.hub.jobs.add(work, "it failed", every=TICK_SECONDS)
    scene.advance(5 * TICK_SECONDS)
    assert job.is_running
    assert work.runs == 1
    work.gate.set()
    scene.advance(TICK_SECONDS)
    assert work.runs == 2


def test_the_timer_does_not_start_a_job_without_an_interval(scene: Scene) -> None:
    work = Work()
    job = scene.hub.jobs.add(work, "it failed")
    scene.advance(5 * TICK_SECONDS)
    assert work.runs == 0
    scene.run(_start(job))
    assert work.runs == 1


async def _start(job: Job) -> None:
    job.start()
    await asyncio.sleep(0)


def test_a_failing_heartbeat_does_not_stop_the_timer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.join()
    monkeypatch.setattr(scene.hub.heartbeats, "push", lambda now: 1 / 0)
    work = Work()
    scene.hub.jobs.add(work, "it failed", every=TICK_SECONDS)
    scene.advance(5 * TICK_SECONDS)
    assert work.runs >= 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brings eager tasks")
class TestEagerTasks:
    @pytest.fixture
    def scene(self, scene: Scene) -> Scene:
        scene.loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        return scene

    def test_head_checks_go_on(self, scene: Scene) -> None:
        client = scene.join()
        for _ in range(3):
            scene.append()  # its wake-up is lost
            scene.advance(5.0)
        assert client.seqs() == [1, 2, 3]

    def test_a_job_that_never_waits_runs_at_each_tick(self, scene: Scene) -> None:
        work = Work()
        scene.hub.jobs.add(work, "it failed", every=TICK_SECONDS)
        scene.advance(5 * TICK_SECONDS)
        assert work.runs >= 4

    def test_a_topic_is_left_and_followed_again(self, scene: Scene) -> None:
        for _ in range(2):
            client = scene.join()
            scene.publish(2)
            assert client.view.position == scene.head
            scene.leave(client)
            scene.advance(120.0)
            assert TOPIC not in scene.hub.topics
