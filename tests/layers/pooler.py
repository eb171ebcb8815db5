"""A proxy for PostgreSQL that drops notifications as a transaction pooler does.

Such a pooler lends a server connection to a client for one transaction.
So a notification gets through only together with the answer to a running statement on the same
connection; at any other time the connection has no client, and the notification is dropped.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from tests.support.databases import database_config


class Pooler:
    """A port on 127.0.0.1 that forwards to the server at a URL.

    Attributes:
        dropped: the number of dropped notifications.
        transparent: set it to let all notifications through.
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
        with contextlib.suppress(OSError):  # the pooler was closed
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(self.server)
                is_busy = threading.Event()
                is_busy.set()  # the server answers the startup message
                for run, args in (
                    (self._to_server, (client, server, is_busy)),
                    (self._to_client, (server, client, is_busy)),
                ):
                    thread = threading.Thread(target=run, args=args)
                    thread.start()
                    self._threads.append(thread)

    def _to_server(
        self, client: socket.socket, server: socket.socket, is_busy: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                is_busy.set()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _to_client(
        self, server: socket.socket, client: socket.socket, is_busy: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            for kind, message in _messages(server):
                if kind == b"A" and not is_busy.is_set() and not self.transparent:
                    self.dropped += 1
                    continue
                client.sendall(message)
                if kind == b"Z":
                    is_busy.clear()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _messages(server: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, message) of the server's messages.

    A message is a type of one byte, a length of four bytes that includes itself, and a body.
    """
    data = b""
    while more := server.recv(65536):
        data += more
        while len(data) >= 5 and len(data) > (length := struct.unpack("!I", data[1:5])[0]):
            yield data[:1], data[: length + 1]
            data = data[length + 1 :]
