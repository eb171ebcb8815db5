"""A Daphne that receives its socket as it does from systemd."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.deploy.support.files import exec_start, setting
from tests.deploy.support.running import APPLICATION
from tests.support.server import DEADLINE, Server

# sd_listen_fds(3): the first descriptor is 3, and the variables name the receiving process.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "realtime"}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class ActivatedServer(Server):
    """The service and its socket, which listens even while the service does not run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, application=APPLICATION)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", self.port))
        self.socket.listen(int(setting("realtime@.socket", "Backlog")))

    @property
    def waiting(self) -> int:
        """The number of connections that wait to be accepted, counted by the kernel."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if state == "0A" and int(local.partition(":")[2], 16) == self.port:
                return int(queues.partition(":")[2], 16)
        raise AssertionError(f"nothing listens on port {self.port}")

    def start(self) -> None:
        """Run ExecStart and ExecStartPost, which returns when the process answers."""
        self.launch()
        command = setting("realtime@.service", "ExecStartPost").replace("800%i", str(self.port))
        started = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=DEADLINE * 2, check=False
        )
        assert started.returncode == 0, started.stderr

    def launch(self) -> None:
        """Run only ExecStart."""
        command = [*exec_start()[1:-1], self.application]
        descriptor = self.socket.fileno()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ACTIVATE, str(descriptor), *command],
                env=self.env,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
            )
