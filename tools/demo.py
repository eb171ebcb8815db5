"""`make demo`: install, migrate, load the sample data and serve the demo with Daphne."""

import os
import socket
import subprocess
import sys

from tools.environment import ROOT, ensure, say
from tools.serving import daphne

HOST = "127.0.0.1"


def main() -> None:
    port = _free_port(sys.argv[1] if len(sys.argv) > 1 else "8000")
    python = str(ensure())
    os.chdir(ROOT)
    for command in (["migrate", "--verbosity", "0"], ["load_demo"]):
        done = subprocess.run([python, "manage.py", *command], check=False)
        if done.returncode:
            sys.exit(f"manage.py {command[0]} failed; its output is above.")
    say(f"The demo is at http://{HOST}:{port}/ (stop it with Ctrl-C)")
    serve = daphne(HOST, port, "project.asgi:application")
    os.execv(python, [python, *serve])  # signals reach Daphne itself


def _free_port(text: str) -> int:
    """Return the port, or exit with one line if it is unusable, before anything slow happens."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        sys.exit(f"PORT={text} is not a port number: try make demo PORT=8001")
    port = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = port + 1 if 1024 <= port < 65535 else 8001
            reason = "is not allowed" if isinstance(error, PermissionError) else "is in use"
            sys.exit(f"Port {port} {reason}: try make demo PORT={other}")
    return port


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
