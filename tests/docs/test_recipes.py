"""Run the tests of the sample site whose code docs/howto.md quotes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample"
PASSED_ON = ("PATH", "HOME", "LANG")  # environment variables


@pytest.mark.parametrize("settings", ["settings", "with_csp", "with_djangos_csp"])
def test_the_recipes_do_what_the_page_says(settings: str, tmp_path: Path) -> None:
    if settings == "with_djangos_csp" and find_spec("django.utils.csp") is None:
        pytest.skip("django.utils.csp needs Django 6.0 or newer")
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test", "--parallel", "1"],
        cwd=SAMPLE,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ}
        | {
            "DJANGO_SETTINGS_MODULE": f"mysite.{settings}",
            "REALTIME_TEST_DIR": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(SAMPLE.parents[2]),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 16 tests" in done.stderr
