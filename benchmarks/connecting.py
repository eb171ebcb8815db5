"""How fast signed-in clients are let in after a start: connect, session, permission, first frame.

    python -m benchmarks.connecting --clients 4000 --transport ws,sse

Ours is ready when it is subscribed to a topic for signed-in users; plain Channels when a consumer
behind ``AuthMiddlewareStack`` has greeted its signed-in user.
Each round is a fresh server process, which 20 clients have met; the rounds take turns, and the
best of each counts.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fanout import TRANSPORTS
from benchmarks.load import Client, Load, LoadError
from benchmarks.machine import has_files_for
from benchmarks.peers import PEERS, SUBSCRIBE, SUBSCRIBED, Peer, Place, place
from benchmarks.people import cookies
from benchmarks.report import Report, numbers, options

TOPIC = "signed.fanout"
WARM = 20  # clients before those that are measured
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
    """How long it took until all were ready, and the seconds of a core of the server's."""

    seconds: float
    cpu: float


def connect(here: Place, peer: Peer, client: Client, headers: list[str]) -> Round:
    """Connect a client for each header to a fresh server.

    Raises:
        LoadError: some did not get in.
    """
    with peer.start(here) as server, Load(server.port) as load:
        load.take(replace(client, header=header) for header in headers)
        load.connect(0, WARM)
        before = server.usage.cpu()
        try:
            seconds = load.connect(WARM)
        except LoadError as error:
            raise LoadError(f"{error}; its log ends: {server.last_words()}") from error
        return Round(seconds, server.usage.cpu() - before)


def compare(here: Place, report: Report, transport: str, headers: list[str], rounds: int) -> None:
    """Measure ours and plain Channels in turns."""
    count = len(headers) - WARM
    what = f"{count:,} signed-in {TRANSPORTS[transport]}s"
    found: dict[str, list[Round]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name, clients in CLIENTS.items():
            try:
                found[name].append(connect(here, PEERS[name], clients[transport], headers))
            except LoadError as error:
                report.figure(f"{what} connect", PEERS[name].title, str(error))
                return
    best = {name: min(each.seconds for each in all_rounds) for name, all_rounds in found.items()}
    for name, seconds in best.items():
        cpu = min(each.cpu for each in found[name]) / count
        shown = f"{count / seconds:,.0f}/s, {cpu * 1e3:.2f} ms of a core each"
        report.figure(f"{what} connect", PEERS[name].title, shown, seconds=seconds, cpu=cpu)
    if count == 4_000 and transport == "ws":
        text = f"{what} connect: time of ours to plain Channels"
        report.aim(text, best["ours"] / best["plain-redis"], 1.0)


def main() -> None:
    chosen = options("connecting", clients="", transport="", rounds=3)
    counts = numbers(chosen.clients) or ([4_000] if chosen.quick else [500, 4_000, 16_000])
    transports = chosen.transport or ("ws" if chosen.quick else "ws,sse")
    report = Report("connecting")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        headers = cookies(here, max(counts) + WARM)
        for transport in transports.split(","):
            for count in counts:
                if has_files_for(count):
                    rounds = chosen.rounds if count <= 4_000 and transport == "ws" else 1
                    compare(here, report, transport, headers[: count + WARM], rounds)
                else:
                    print(f"{count:,} clients: skipped, this user may not open as many files")
    report.save(chosen.json)


if __name__ == "__main__":
    main()
