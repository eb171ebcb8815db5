"""Virtual environments, created once and updated only when the requirements change."""

import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
DEFAULT = ROOT / ".venv"


def say(line: str) -> None:
    """Print a line and flush it, so that it appears at once in a file too."""
    print(line, flush=True)


def ensure(
    folder: Path = DEFAULT,
    *,
    groups: Sequence[str] = (),
    optional: Sequence[str] = (),
    pins: Sequence[str] = (),
    python: str | None = None,
) -> Path:
    """Return the Python of a virtual environment with the project and its dependencies.

    Args:
        folder: the environment; created if it does not exist.
        groups: dependency groups of pyproject.toml that must be installed.
        optional: dependency groups whose packages are skipped if they cannot be installed.
        pins: additional requirements, such as `django~=5.2.0`.
        python: the interpreter to create it with; by default the running one.

    Raises:
        SystemExit: with the failed tool's output, and a line that says what to do.
    """
    chosen = python or os.environ.get("PYTHON")
    inside = folder / "bin" / "python"
    version = _version(inside)
    if version is None or (chosen and _version(chosen, "") != version):
        _make(folder, python or sys.executable)
        version = _version(inside)
    stamp = folder / ("-".join(["installed", *groups, *optional]) + ".txt")
    now = _fingerprint(version, groups, optional, pins)
    if stamp.is_file() and stamp.read_text() == now:
        return inside
    say(f"Installing into {folder.relative_to(ROOT)} (the first time takes a minute or two) ...")
    _install(inside, ["-e", str(ROOT), *requirements(groups), *pins])
    for requirement in requirements(optional):
        if _pip(inside, [requirement, *pins]) is not None:
            say(f"Cannot be installed here, so its tests will be skipped: {requirement}")
    stamp.write_text(now)
    return inside


def requirements(groups: Iterable[str]) -> list[str]:
    """Return the requirements of dependency groups, which pip can read only since 25.1."""
    table = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    found: list[str] = []
    for group in groups:
        for item in table[group]:
            if isinstance(item, dict):
                found += requirements([item["include-group"]])
            else:
                found.append(item)
    return list(dict.fromkeys(found))


def can_make_environments(python: str) -> bool:
    """Tell whether this interpreter has venv and ensurepip; Debian packages them separately."""
    return _runs([python, "-c", "import ensurepip, venv"])


def _make(folder: Path, python: str) -> None:
    if not can_make_environments(python):
        sys.exit(
            f"{python} cannot create a virtual environment: "
            "install the package python3-venv, then run again."
        )
    say(f"Creating {folder.relative_to(ROOT)} ...")
    made = subprocess.run(
        [python, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode or _version(folder / "bin" / "python") is None:
        sys.exit(f"{made.stdout}{made.stderr}\n{python} could not create {folder}.")


def _install(python: Path, arguments: list[str]) -> None:
    if output := _pip(python, arguments):
        sys.exit(f"{output}\npip could not install the requirements; its output is above.")


def _pip(python: Path, arguments: list[str]) -> str | None:
    """Run pip; return None, or its output if it failed."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return f"{done.stdout}{done.stderr}".rstrip() or "no output" if done.returncode else None


def _version(python: Path | str, imports: str = "import pip;") -> str | None:
    """Return the interpreter's version; None if it does not run, is too old or has no pip."""
    code = f"{imports}import sys; print(*sys.version_info[:3], sep='.')"
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    version = done.stdout.strip()
    return version if tuple(map(int, version.split(".")[:2])) >= (3, 11) else None


def _fingerprint(version: str | None, *lists: Sequence[str]) -> str:
    """Return a text that changes when the environment must be updated."""
    project = hashlib.sha256(PYPROJECT.read_bytes()).hexdigest()
    return f"{project}\n{ROOT}\n{version}\n{lists}\n"


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
