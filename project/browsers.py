"""Two browsers in one page: only for a demo.

What is below /customer/ and below /desk/ is the whole site once more, each with cookies of its own.
So two people can be signed in side by side, each with their own session and connection, as if they
sat at two computers.
The site believes that it is mounted there (ASGI's `root_path`), and sees no other cookies.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Application = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class SeparateBrowsers:
    """Serve an application under its own path, and once more under each name.

    Args:
        application: the site; HTTP and WebSocket requests go through here.
        names: first segments of paths, such as `desk`. A cookie that the site sets as `a` below
            /desk/ is `desk.a` for the real browser.
    """

    def __init__(self, application: Application, names: tuple[str, ...]) -> None:
        self.application = application
        self.names = names

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] in {"http", "websocket"}:
            root = scope.get("root_path") or ""
            path = scope["path"].removeprefix(root)
            name = next((n for n in self.names if f"{path}/".startswith(f"/{n}/")), None)
            scope = {**scope, "headers": self._headers(name, scope["headers"])}
            if name is not None:
                scope["root_path"] = f"{root}/{name}"
                # A WebSocket is accepted without cookies, and its `send` stays the server's own.
                send = _renaming(name, send) if scope["type"] == "http" else send
        await self.application(scope, receive, send)

    def _headers(self, name: str | None, headers: Headers) -> Headers:
        """Return the headers with the cookies of one browser, called as the site knows them."""
        others = tuple(f"{other}.".encode() for other in self.names)
        kept: Headers = []
        for key, value in headers:
            if key.lower() != b"cookie":
                kept.append((key, value))
                continue
            cookies = [cookie.strip() for cookie in value.split(b";")]
            if name is None:
                mine = [cookie for cookie in cookies if not cookie.startswith(others)]
            else:
                prefix = f"{name}.".encode()
                mine = [c.removeprefix(prefix) for c in cookies if c.startswith(prefix)]
            if mine:
                kept.append((key, b"; ".join(mine)))
        return kept


def _renaming(name: str, send: Any) -> Any:
    prefix = f"{name}.".encode()

    async def renaming(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (key, prefix + value if key.lower() == b"set-cookie" else value)
                for key, value in message.get("headers", [])
            ]
            message = {**message, "headers": headers}
        await send(message)

    return renaming
