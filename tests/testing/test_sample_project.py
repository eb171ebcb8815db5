"""The tests of a sample project, which use `realtime.testing`, pass with pytest and with Django.

Covers plugin.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample"
ROOT = SAMPLE.parents[2]


@pytest.mark.parametrize(
    ("runner", "output"),
    [
        (["-m", "pytest", "-q", "-p", "no:asyncio"], "8 passed"),
        (["manage.py", "test", "-v1", "--parallel", "1"], "Ran 5 tests"),
        (["manage.py", "test", "-v1", "--parallel", "2"], "Ran 5 tests"),
    ],
    ids=["pytest", "django", "django-in-parallel"],
)
def test_the_tests_of_a_project_pass(tmp_path: Path, runner: list[str], output: str) -> None:
    project = shutil.copytree(SAMPLE, tmp_path / "sample")
    keep = ("PATH", "HOME", "LANG")
    done = subprocess.run(
        [sys.executable, *runner],
        cwd=project,
        env={name: os.environ[name] for name in keep if name in os.environ}
        | {"PYTHONPATH": str(ROOT)},  # this checkout, even if another version is installed
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert output in done.stdout + done.stderr
