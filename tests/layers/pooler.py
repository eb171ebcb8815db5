"""A proxy before PostgreSQL that keeps notifications back as a pooler of transactions does.

Such a pooler hands a server's connection out for one transaction at a time.
So a notification gets through only with the answer to a statement that is under way on the same
connection; one that comes while nothing is asked belongs to nobody and is dropped.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from tests.support.databases import database_config


class Pooler:
    """A port of 127.0.0.1 before the server at a URL.

    Attributes:
        dropped: how many notifications were kept back.
        transparent: let everything through from now on.
    """

    def __init__(self, url: str) -> None:
        self.server = f"{database_config(url)['HOST']}/.s.PGSQL.5432"
        self.dropped = 0
        self.transparent = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        port = self._listening.getsockname()[1]
        return f"postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable"

    def close(self) -> None:
        for one in [self._listening, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in [self._listening, *self._sockets]:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(self.server)
                asked = threading.Event()
                asked.set()  # the session begins with an answer
                for run, args in (
                    (self._to_server, (client, server, asked)),
                    (self._to_client, (server, client, asked)),
                ):
                    thread = threading.Thread(target=run, args=args)
                    thread.start()
                    self._threads.append(thread)

    def _to_server(
        self, client: socket.socket, server: socket.socket, asked: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                asked.set()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _to_client(
        self, server: socket.socket, client: socket.socket, asked: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            for kind, message in _messages(server):
                if kind == b"A" and not asked.is_set() and not self.transparent:
                    self.dropped += 1
                    continue
                client.sendall(message)
                if kind == b"Z":
                    asked.clear()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _messages(server: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Yield the server's messages: a letter, a length of four bytes that counts itself, a body."""
    data = b""
    while more := server.recv(65536):
        data += more
        while len(data) >= 5 and len(data) > (length := struct.unpack("!I", data[1:5])[0]):
            yield data[:1], data[: length + 1]
            data = data[length + 1 :]
