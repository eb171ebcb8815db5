"""Virtual environments: made once, installed again only when something changed."""

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
    """Print at once, also when the output goes to a file."""
    print(line, flush=True)


def ensure(
    folder: Path = DEFAULT,
    *,
    groups: Sequence[str] = (),
    optional: Sequence[str] = (),
    pins: Sequence[str] = (),
    python: str | None = None,
) -> Path:
    """Return the Python of a virtual environment that has the project and what it needs.

    Args:
        folder: where the environment is, or will be made.
        groups: dependency groups of pyproject.toml that must be there.
        optional: dependency groups of which each package may be missing.
        pins: requirements beside those of the project, such as `django~=5.2.0`.
        python: the interpreter to make it from; the running one if not given.

    Raises:
        SystemExit: with one line that says what to do, after the failed tool's own output.
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
            say(f"Not available here, its tests will skip: {requirement}")
    stamp.write_text(now)
    return inside


def requirements(groups: Iterable[str]) -> list[str]:
    """Return the requirements of dependency groups; pip itself knows them only from 25.1 on."""
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
    """Tell whether this interpreter has venv and pip to put into it (Debian splits them off)."""
    return _runs([python, "-c", "import ensurepip, venv"])


def _make(folder: Path, python: str) -> None:
    if not can_make_environments(python):
        sys.exit(
            f"{python} cannot make a virtual environment: "
            "install the package python3-venv, then run again."
        )
    say(f"Making {folder.relative_to(ROOT)} ...")
    made = subprocess.run(
        [python, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode or _version(folder / "bin" / "python") is None:
        sys.exit(f"{made.stdout}{made.stderr}\n{python} could not make {folder}.")


def _install(python: Path, arguments: list[str]) -> None:
    if output := _pip(python, arguments):
        sys.exit(f"{output}\npip could not install what is needed; its own words are above.")


def _pip(python: Path, arguments: list[str]) -> str | None:
    """Return None, or what pip said when it failed."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return f"{done.stdout}{done.stderr}".rstrip() or "no output" if done.returncode else None


def _version(python: Path | str, imports: str = "import pip;") -> str | None:
    """Return the interpreter's version, None if it does not start, is too old or has no pip."""
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
    """Return a text that changes when the environment must be installed again."""
    project = hashlib.sha256(PYPROJECT.read_bytes()).hexdigest()
    return f"{project}\n{ROOT}\n{version}\n{lists}\n"


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
