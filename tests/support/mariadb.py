"""A real MariaDB for the tests, on a Unix socket, without system tables."""

import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.services import drop_root
from tests.support.waiting import wait_until

GET_MARIADB = "MariaDB: put mariadbd on PATH (Debian: apt install mariadb-server-core)"
GET_DRIVER = "a driver for MariaDB: pip install pymysql (or mysqlclient)"

OPTIONS = [
    "--no-defaults",  # not the settings of /etc/mysql
    "--skip-networking",  # only the Unix socket
    # Without the tables of users and privileges, an empty folder is a data folder.
    "--skip-grant-tables",
    "--innodb-flush-log-at-trx-commit=0",  # a temporary server need not survive a crash
    "--innodb-flush-method=nosync",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=32M",
    "--max-connections=200",
    "--max-allowed-packet=4M",  # a quarter of the default, which tests exceed
]


def mariadb_path() -> str | None:
    """Return the path of mariadbd; on Debian only root's PATH contains it."""
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")


def mariadb_driver() -> str | None:
    """Return the name of an installed driver that Django can use; None if there is none."""
    return next(filter(importlib.util.find_spec, ("MySQLdb", "pymysql")), None)


@contextlib.contextmanager
def run_mariadb(path: str) -> Iterator[str]:
    """Run a new MariaDB and yield the URL of a database that does not exist yet."""
    # Not $TMPDIR: the path of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="realtime-mariadb-", dir="/tmp"))
    try:
        with _running(path, folder):
            yield f"mysql://root@/realtime?host={folder}/socket"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(path: str, folder: Path) -> Iterator[None]:
    data, log = folder / "data", folder / "log"
    data.mkdir()
    drop = drop_root(folder, data)  # MariaDB refuses to run as root
    with log.open("wb") as output:
        process = subprocess.Popen(
            [path, *OPTIONS, f"--datadir={data}", f"--socket={folder}/socket"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the tests, which stop the server
            **drop,
        )

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"mariadbd ended:\n{log.read_text()}")
        return b"ready for connections" in log.read_bytes()

    try:
        wait_until(ready, f"MariaDB is ready, see {log}", timeout=30)
        yield
    finally:
        process.kill()  # the data is removed, so it need not be saved
        process.wait(10)
