"""The demo site for tests and screenshots: a real Daphne with its own database, on any port."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tools.environment import ROOT
from tools.serving import daphne

START_SECONDS = 30  # a slow machine needs several seconds to import Django and Twisted


class DemoServer:
    """A demo site that can be killed and started again on its port.

    Args:
        folder: an empty folder for its database and its log.
        like: a server that was never started; copying its database saves three seconds.
        environ: environment variables in addition to this process's, such as DEMO_DEBUG.
    """

    def __init__(
        self, folder: Path, like: "DemoServer | None" = None, environ: dict[str, str] | None = None
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = folder / "daphne.log"
        self.database = folder / "demo.sqlite3"
        self.environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DEMO_DATABASE": str(self.database),
            **(environ or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        if like is not None:
            shutil.copy(like.database, self.database)
        else:
            self.manage("migrate", "--verbosity", "0")
            self.manage("load_demo")

    def manage(self, *arguments: str) -> str:
        """Run a management command in another process and return its output.

        Raises:
            RuntimeError: the command failed; the message contains its output.
        """
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start Daphne as `make demo` does, and wait until it listens.

        Raises:
            RuntimeError: Daphne exited, or did not listen in time.
        """
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *daphne("127.0.0.1", self.port, "project.asgi:application")],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Daphne did not start:\n{self.log.read_text()}")

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash; clients get no close frame."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
