"""How fast signed-in clients connect to a new server, up to the first frame.

    python -m benchmarks.connecting --clients 4000 --transport ws,sse

A connect includes the handshake, the session and the permission.
With this package, a client is ready when it is subscribed to a topic for signed-in users; with
plain Channels, when a consumer behind ``AuthMiddlewareStack`` has greeted it.
Each round uses a fresh server process, warmed up by 20 clients; the servers take turns, and the
best round of each counts.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fanout import TRANSPORTS
from benchmarks.load import Client, Load, LoadError
from benchmarks.machine import has_files_for
from benchmarks.peers import PEERS, SUBSCRIBE, SUBSCRIBED, Peer, Workspace, prepare
from benchmarks.people import cookies
from benchmarks.report import Report, numbers, options

TOPIC = "signed.fanout"
WARM = 20  # clients that warm the server up
CLIENTS = {
    "ours": {
        "ws": Client("ws", "/realtime/ws?v=1", frame=SUBSCRIBE % TOPIC, marker=SUBSCRIBED),
        "sse": Client("sse", f"/realtime/sse?topic={TOPIC}", marker=SUBSCRIBED),
    },
    "plain-redis": {
        "ws": Client("ws", "/plain/signed/", marker="hello"),
        "sse": Client("sse", "/plain/signed-stream/", marker="hello"),
    },
}


@dataclass(frozen=True)
class Round:
    """The seconds until all clients were ready, and the CPU seconds that the server used."""

    seconds: float
    cpu: float


def connect(workspace: Workspace, peer: Peer, client: Client, headers: list[str]) -> Round:
    """Connect one client per header to a fresh server.

    Raises:
        LoadError: some clients could not connect.
    """
    with peer.start(workspace) as server, Load(server.port) as load:
        load.take(replace(client, header=header) for header in headers)
        load.connect(0, WARM)
        before = server.usage.cpu()
        try:
            seconds = load.connect(WARM)
        except LoadError as error:
            raise LoadError(f"{error}; its log ends: {server.last_log_line()}") from error
        return Round(seconds, server.usage.cpu() - before)


def compare(
    workspace: Workspace, report: Report, transport: str, headers: list[str], rounds: int
) -> None:
    """Measure this package and plain Channels in turns."""
    count = len(headers) - WARM
    what = f"{count:,} signed-in {TRANSPORTS[transport]}s"
    found: dict[str, list[Round]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name, clients in CLIENTS.items():
            try:
                found[name].append(connect(workspace, PEERS[name], clients[transport], headers))
            except LoadError as error:
                report.figure(f"{what} connect", PEERS[name].title, str(error))
                return
    best = {name: min(each.seconds for each in all_rounds) for name, all_rounds in found.items()}
    for name, seconds in best.items():
        cpu = min(each.cpu for each in found[name]) / count
        shown = f"{count / seconds:,.0f}/s, {cpu * 1e3:.2f} ms of a core each"
        report.figure(f"{what} connect", PEERS[name].title, shown, seconds=seconds, cpu=cpu)
    if count == 4_000 and transport == "ws":
        text = f"{what} connect: time compared with plain Channels"
        report.target(text, best["ours"] / best["plain-redis"], 1.0)


def main() -> None:
    chosen = options("connecting", clients="", transport="", rounds=3)
    counts = numbers(chosen.clients) or ([4_000] if chosen.quick else [500, 4_000, 16_000])
    transports = chosen.transport or ("ws" if chosen.quick else "ws,sse")
    report = Report("connecting")
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        headers = cookies(workspace, max(counts) + WARM)
        for transport in transports.split(","):
            for count in counts:
                if has_files_for(count):
                    rounds = chosen.rounds if count <= 4_000 and transport == "ws" else 1
                    compare(workspace, report, transport, headers[: count + WARM], rounds)
                else:
                    print(f"{count:,} clients: skipped, the limit of open files is too low")
    report.save(chosen.json)


if __name__ == "__main__":
    main()
