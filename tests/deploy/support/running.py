"""Run Daphne and nginx as deploy/ does."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.deploy.support.files import daphne_options, write_nginx
from tests.support.nginx import GET_NGINX, nginx_path
from tests.support.server import DEADLINE, Server, free_port
from tests.support.services import require
from tests.support.waiting import wait_until

APPLICATION = "tests.deploy.support.application:application"
USER = "user root;" if os.geteuid() == 0 else ""


class SocketFileServer(Server):
    """Daphne on a socket file, with the options of the service and additional ones."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, application=APPLICATION, options=options)
        self.path = folder / f"{self.port}.sock"

    @property
    def address(self) -> str:
        """Its address, in nginx's syntax."""
        return f"unix:{self.path}"

    def _command(self) -> list[str]:
        endpoint = f"unix:{self.path}:mode=660:backlog=4096"
        return [
            "daphne",
            "--endpoint",
            endpoint,
            *daphne_options(),
            *self.options,
            self.application,
        ]

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"Daphne exited at once:\n{self.log.read_text()[-4000:]}")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0


def answers(port: int) -> bool:
    """Tell whether something listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def deployed_nginx(folder: Path, addresses: Sequence[str], tls: int | None = None) -> Iterator[int]:
    """Run nginx with deploy/nginx.conf in front of these addresses, and yield its port."""
    path = require(nginx_path(), GET_NGINX)
    port = free_port()
    config = write_nginx(folder, port, addresses, USER, tls)
    log = folder / "nginx.log"
    command = [path, "-p", str(folder), "-c", str(config), "-e", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def listens() -> bool:
        assert process.poll() is None, f"nginx exited:\n{log.read_text()}"
        return answers(port)

    try:
        wait_until(listens, "nginx listens", DEADLINE)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE)
