"""How a thread waits for other threads and for a socket at the same time."""

from __future__ import annotations

import selectors
import socket
import weakref
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """Rung by any thread, waited for by one.

    A ring that comes while nobody waits ends the next wait at once.
    """

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        weakref.finalize(self, _close, self._inner, self._outer).atexit = False

    def ring(self) -> None:
        """Wake the thread that waits."""
        with suppress(BlockingIOError):  # so many rings that one is sure to be heard
            self._outer.send(b"\0")

    def wait(self, seconds: float, other: int | None = None) -> bool:
        """Wait for a ring, at most so many seconds, or until a socket can be read.

        Args:
            seconds: not negative.
            other: the descriptor of the socket.

        Returns:
            True if the socket can be read.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._inner, selectors.EVENT_READ)
            if other is not None:
                selector.register(other, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(seconds)}
        if self._inner in ready:
            with suppress(BlockingIOError):
                self._inner.recv(4096)
        return other in ready


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()
