"""`make test-all`: run the tests on the oldest supported Django and Python, and on the newest.

`python -m tools.run_all newest` runs only the second.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.environment import ROOT, can_make_environments, ensure, say
from tools.run_tests import parallel
from tools.services import provide_services


@dataclass(frozen=True)
class Pair:
    """A Django series and its Python versions; the newest installed version is used."""

    name: str
    django: str
    minors: range  # minor versions of Python 3


PAIRS = (
    Pair("oldest", "5.2", range(11, 12)),
    Pair("newest", "6.1", range(12, 30)),
)


def main() -> int:
    wanted = sys.argv[1:] or [pair.name for pair in PAIRS]
    results: list[str] = []
    ran = failed = 0
    for pair in (pair for pair in PAIRS if pair.name in wanted):
        found = _newest_python(pair.minors)
        if found is None:
            versions = ", ".join(f"3.{minor}" for minor in pair.minors[:3])
            more = " ..." if len(pair.minors) > 3 else ""
            results.append(
                f"Django {pair.django}: not run, because there is no Python {versions}{more}"
            )
            continue
        minor, python = found
        code = _run(pair, minor, python)
        ran += 1
        failed += code != 0
        outcome = "passed" if code == 0 else f"FAILED (pytest exited with {code})"
        results.append(f"Django {pair.django} on Python 3.{minor}: ran, {outcome}")
    for line in results:
        say(line)
    return 1 if failed or (not ran and len(wanted) > 1) else 0


def _run(pair: Pair, minor: int, python: str) -> int:
    folder = ROOT / ".venvs" / f"py3{minor}-django{pair.django.replace('.', '')}"
    say(f"== Django {pair.django} on Python 3.{minor} ({python})")
    inside = ensure(
        folder,
        groups=["test"],
        optional=["services"],
        pins=[f"django~={pair.django}.0"],
        python=python,
    )
    provide_services(inside)
    command = [str(inside), "-m", "pytest", *parallel()]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _newest_python(minors: range) -> tuple[int, str] | None:
    """Return the newest released interpreter that starts and can create an environment."""
    for minor in reversed(minors):
        for python in _candidates(minor):
            if _is_released(python, minor) and can_make_environments(python):
                return minor, python
    return None


def _candidates(minor: int) -> list[str]:
    """Return candidates for Python 3.minor; pyenv's shims are on PATH even if they cannot run."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python3.{minor}")
    installed = sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python3.{minor}"), reverse=True)
    return [*([on_path] if on_path else []), *map(str, installed)]


def _is_released(python: str, minor: int) -> bool:
    code = "import sys; print(sys.version_info[1], sys.version_info.releaselevel)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.split() == [str(minor), "final"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
