"""Simulate two browsers in one page, for the demo.

The whole site is also mounted below /customer/ and below /desk/, each with separate cookies.
Two people can be signed in side by side, each with their own session and connection.
The site sees the mount point (ASGI's `root_path`) and only the cookies of that browser.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Application = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class SeparateBrowsers:
    """Serve an application at / and also below /<name>/ for each name.

    Args:
        application: the site.
        names: first path segments, such as `desk`. If the site sets the cookie `a` below /desk/,
            the real browser stores it as `desk.a`.
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
                # The WebSockets of the site set no cookies, so they use the server's `send`.
                send = _with_renamed_cookies(name, send) if scope["type"] == "http" else send
        await self.application(scope, receive, send)

    def _headers(self, name: str | None, headers: Headers) -> Headers:
        """Keep only the cookies of one browser, and remove the prefix from their names."""
        prefixes = tuple(f"{each}.".encode() for each in self.names)
        kept: Headers = []
        for key, value in headers:
            if key.lower() != b"cookie":
                kept.append((key, value))
                continue
            cookies = [cookie.strip() for cookie in value.split(b";")]
            if name is None:
                own = [cookie for cookie in cookies if not cookie.startswith(prefixes)]
            else:
                prefix = f"{name}.".encode()
                own = [c.removeprefix(prefix) for c in cookies if c.startswith(prefix)]
            if own:
                kept.append((key, b"; ".join(own)))
        return kept


def _with_renamed_cookies(name: str, send: Any) -> Any:
    """Return a `send` that adds the browser's prefix to the cookies of a response."""
    prefix = f"{name}.".encode()

    async def send_renamed(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (key, prefix + value if key.lower() == b"set-cookie" else value)
                for key, value in message.get("headers", [])
            ]
            message = {**message, "headers": headers}
        await send(message)

    return send_renamed
