"""A real nginx in front of test servers: with its defaults, on loopback, without privileges."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.server import DEADLINE, free_port
from tests.support.waiting import wait_until

GET_NGINX = "nginx: put nginx on PATH (Debian: apt install nginx-light)"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_path() -> str | None:
    """Return the path of nginx; on Debian only root's PATH contains it."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def nginx(
    path: str, folder: Path, ports: Sequence[int | str], locations: str = ""
) -> Iterator[int]:
    """Run nginx as a round-robin proxy of these ports of 127.0.0.1, and yield its own port.

    It has nginx's default settings, including HTTP/1.0 to the servers, with two exceptions: it
    passes on the Host header, which Django needs, and retries a server right after a failure.

    Args:
        path: of nginx.
        folder: for the files of this nginx only.
        ports: of the servers; a text is an address, such as ``unix:/run/site.sock``.
        locations: additional ones, before the one that passes everything on to ``http://site``.
    """
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    addresses = [each if isinstance(each, str) else f"127.0.0.1:{each}" for each in ports]
    servers = " ".join(f"server {address} max_fails=0;" for address in addresses)
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    config = folder / "nginx.conf"
    config.write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/nginx.pid;\n"
        f"error_log {folder}/nginx.log;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"upstream site {{ {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port};\n{locations}\n"
        "location / { proxy_pass http://site; proxy_set_header Host $http_host; } } }\n"
    )
    command = [path, "-p", str(folder), "-c", str(config), "-e", str(folder / "nginx.log")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def listens() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"nginx ended:\n{(folder / 'nginx.log').read_text()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        wait_until(listens, "nginx listens", DEADLINE)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE)
