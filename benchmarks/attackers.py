"""Clients that attack a server on loopback, each for a few seconds and with few connections.

    python -m benchmarks.attackers NAME PORT SECONDS

prints what happened as JSON. An attacker that is cut connects again, ``CONNECTIONS`` times at most.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass

MASK = b"\0\0\0\0"
CONNECTIONS = 20
PART = 2_000  # frames that are prepared together
PAUSE_SECONDS = 0.2  # between two connections
PATIENCE_SECONDS = 3.0  # after which an attacker that is not cut gives up
HEAD = (
    "GET /realtime/ws?v=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a masked frame; the mask is zero, so the payload stays readable."""
    first = bytes([opcode | (0x80 if fin else 0)])
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0xFE]) + size.to_bytes(2, "big")
    else:
        length = bytes([0xFF]) + size.to_bytes(8, "big")
    return first + length + MASK + payload


def subscribes() -> bytes:
    """Return subscribes and unsubscribes of many topics."""
    kinds = ("subscribe", "unsubscribe")
    texts = [
        f'{{"type":"{kind}","id":1,"topic":"bench.storm-{n}"}}' for n in range(50) for kind in kinds
    ]
    return b"".join(frame(0x1, text.encode()) for text in texts)


@dataclass(frozen=True)
class Attack:
    """What an attacker does.

    Attributes:
        repeat: returns what is sent again and again; None to send nothing after ``first``.
        first: sent once, after the handshake is answered.
        head: whether the request for the WebSocket is sent whole and its answer awaited, sent whole
            only, or sent by half.
        reads: whether the attacker reads.
        kept: why the server keeps such a client; empty if it has to be cut.
    """

    repeat: Callable[[], bytes] | None = None
    first: bytes = b""
    head: str = "answered"
    reads: bool = False
    kept: str = ""


FOLLOW = frame(0x1, b'{"type":"subscribe","topic":"bench.ours-200"}')
ATTACKS = {
    "pings, never read": Attack(lambda: frame(0x9) * PART),
    "pings of 125 bytes, never read": Attack(lambda: frame(0x9, b"x" * 125) * PART),
    "pings of 125 bytes, read": Attack(lambda: frame(0x9, b"x" * 125) * PART, reads=True),
    "unsolicited pongs": Attack(lambda: frame(0xA) * PART),
    "empty continuation frames": Attack(
        lambda: frame(0x0, fin=False) * PART, frame(0x1, fin=False)
    ),
    "fragments of two bytes": Attack(
        lambda: frame(0x0, b"  ", fin=False) * PART, frame(0x1, b"  ", fin=False)
    ),
    "frames of 1 MiB": Attack(lambda: frame(0x1, b" " * 1_048_576)),
    "a header of 2 GB": Attack(lambda: b" " * 65_536, b"\x81\xff" + (2**31).to_bytes(8, "big")),
    "data before the handshake is answered": Attack(
        lambda: frame(0x9, b"x" * 125) * PART, head="sent"
    ),
    "subscribe storms": Attack(subscribes, reads=True),
    "messages that are never completed": Attack(
        first=frame(0x1, b"{" * 60_000, fin=False), kept="up to 30 s"
    ),
    "half a handshake": Attack(head="half", kept="up to 60 s"),
    "slow readers": Attack(first=FOLLOW, kept="up to its buffer"),
}


@dataclass
class Outcome:
    """What happened to an attacker.

    Attributes:
        connections: that it opened.
        cut: those that were ended, as far as the attacker could see.
        sent: bytes that the kernel took.
    """

    connections: int = 0
    cut: int = 0
    sent: int = 0


def connect(port: int, attack: Attack) -> socket.socket:
    """Return a connection whose handshake has gone as far as the attack wants."""
    client = socket.create_connection(("127.0.0.1", port), 5)
    head = HEAD.format(port=port).encode()
    client.sendall(head[: len(head) // 2] if attack.head == "half" else head)
    if attack.head == "answered":
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = client.recv(4_096)
            if not part:
                raise ConnectionError(f"the handshake was refused: {answer!r}")
            answer += part
    client.setblocking(False)
    return client


def flood(client: socket.socket, attack: Attack, outcome: Outcome) -> None:
    """Send until the server ends the connection, or patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    part = attack.repeat() if attack.repeat else b""
    rest = memoryview(attack.first or part)
    poll = select.poll()
    wanted = select.POLLOUT | select.POLLRDHUP | (select.POLLIN if attack.reads else 0)
    poll.register(client, wanted)
    while (now := time.monotonic()) < deadline:
        events = poll.poll(min(100.0, (deadline - now) * 1e3))
        found = events[0][1] if events else 0
        ended = found & (select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        try:
            if found & select.POLLIN and not client.recv(65_536):
                ended = True
            if found & select.POLLOUT and not ended:
                sent = client.send(rest)
                outcome.sent += sent
                rest = rest[sent:] or memoryview(part)
        except ConnectionError:
            ended = True
        if ended:
            outcome.cut += 1
            return
        if not rest:  # all was sent
            poll.modify(client, wanted & ~select.POLLOUT)


def run(attack: Attack, port: int, seconds: float) -> Outcome:
    """Attack for some seconds."""
    deadline, outcome = time.monotonic() + seconds, Outcome()
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            if time.monotonic() > deadline:
                break
            client = stack.enter_context(connect(port, attack))
            outcome.connections += 1
            if attack.kept:
                client.send(attack.first)
                outcome.sent += len(attack.first)
            else:
                flood(client, attack, outcome)
                time.sleep(PAUSE_SECONDS)
        if attack.kept:
            time.sleep(max(0.0, deadline - time.monotonic()))
    return outcome


def main() -> None:
    name, port, seconds = sys.argv[1:]
    with suppress(BrokenPipeError):
        print(json.dumps(asdict(run(ATTACKS[name], int(port), float(seconds)))))


if __name__ == "__main__":
    main()
