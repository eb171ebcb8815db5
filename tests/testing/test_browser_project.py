"""The test that docs/testing.md shows for a browser passes: Chromium, Daphne, two tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parent / "browser_sample"
ROOT = SAMPLE.parents[2]


def test_the_browser_tests_of_a_project_pass(tmp_path: Path, chromium: str) -> None:
    project = shutil.copytree(SAMPLE, tmp_path / "sample")
    keep = ("PATH", "HOME", "LANG")
    done = subprocess.run(
        [sys.executable, "manage.py", "test", "-v1"],
        cwd=project,
        env={name: os.environ[name] for name in keep if name in os.environ}
        | {"PYTHONPATH": str(ROOT), "CHROMIUM": chromium},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 2 tests" in done.stderr
