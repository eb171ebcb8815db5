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
            sys.exit(f"manage.py {command[0]} failed; its own words are above.")
    say(f"The demo is at http://{HOST}:{port}/ (Ctrl-C ends it)")
    serve = daphne(HOST, port, "project.asgi:application")
    os.execv(python, [python, *serve])  # signals reach Daphne itself


def _free_port(text: str) -> int:
    """Return the port, or end with one line if it cannot be used: before anything slow."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        sys.exit(f"PORT={text} is not a port number: try make demo PORT=8001")
    port = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = port + 1 if 1024 <= port < 65535 else 8001
            reason = "may not be used" if isinstance(error, PermissionError) else "is taken"
            sys.exit(f"Port {port} {reason}: try make demo PORT={other}")
    return port


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
