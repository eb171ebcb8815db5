"""The package works where Python has no ``os.fork`` and no ``os.register_at_fork``: on Windows.

Covers threads.py (`after_fork`), and its callers in broadcast.py, outbox.py and layers/.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import DEADLINE, Server, connect

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests/testing/sample"
# Python imports it at the start of every process that has its folder on PYTHONPATH.
SITE_CUSTOMIZE = "import os\ndel os.fork, os.forkpty, os.register_at_fork\n"


def path_without_fork(folder: Path) -> str:
    """Return a PYTHONPATH with which processes have this checkout, and no fork."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    return os.pathsep.join([str(folder), str(ROOT)])


class RunServer(Server):
    """`manage.py runserver` of the test project."""

    def _command(self) -> list[str]:
        return ["django", "runserver", "--noreload", str(self.port)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = RunServer(tmp_path)
    server.env["PYTHONPATH"] = path_without_fork(tmp_path / "path")
    with server:
        yield server


async def test_runserver_delivers_what_another_process_publishes(server: Server) -> None:
    assert server.run("import os; print(hasattr(os, 'register_at_fork'))").strip() == "False"
    async with connect(server, additional_headers=server.sign_in()) as client:
        await client.subscribe("everyone")
        server.run(
            "from django.db import transaction\n"
            "from realtime import publish\n"
            "publish('everyone', 'tick', 0)\n"
            "with transaction.atomic():\n"
            "    publish('everyone', 'tick', 1)"
        )
        assert [event["data"] for event in await client.events(2)] == [0, 1]


def test_the_tests_of_a_project_pass(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "test"],
        cwd=SAMPLE,
        env=os.environ
        | {"PYTHONPATH": path_without_fork(tmp_path / "path")}
        | {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE * 6,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 5 tests" in done.stderr
