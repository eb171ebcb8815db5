"""What the HTTP transports share: reading a request, refusing it, answering.

They are ASGI applications of their own and no Django views, since a streaming response of a view
costs a thread a client.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from django.db import DatabaseError, InterfaceError

from realtime import conf
from realtime.auth import origins
from realtime.auth.users import Identity, identify
from realtime.exceptions import ProtocolError, RealtimeError, StoreError
from realtime.protocol.frames import ErrorCode, check_version
from realtime.writers.asgi import Send

__all__ = [
    "HttpError",
    "Receive",
    "Request",
    "Response",
    "answer",
    "encoded",
    "error_of",
    "read_body",
    "unavailable",
    "whole_number",
]

logger = logging.getLogger("realtime")

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]

ALLOWED_HEADERS = "Authorization, Content-Type, If-None-Match, Last-Event-ID"
FIELDS_A_TOPIC = 3  # of a query: its name, since and last
OTHER_FIELDS = 1_000  # that are read besides; who asks for too many topics hears which is too many
BODY_SECONDS = 30.0  # that a command's body may take: 64 KB over the slowest of mobile networks
LENGTH_DIGITS = 18  # of a Content-Length that are looked at; int() refuses thousands of them
RETRY_SECONDS = 5  # in Retry-After, where the log cannot be reached: about what a restart takes

STATUS = {
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.UNKNOWN_ACTION: HTTPStatus.NOT_FOUND,
    ErrorCode.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.BUSY: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class HttpError(RealtimeError):
    """A request is refused.

    Attributes:
        status: the HTTP status.
        code: a word for programs; of the wire protocol where it has one.
        reason: what was wrong.
        hint: what to do.
        headers: more headers of the answer.
        topic: the one of several topics that is to blame; None for all, and for others.
    """

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        hint: str,
        headers: Mapping[str, str] = {},
        *,
        topic: str | None = None,
    ) -> None:
        super().__init__(status, code, reason, hint, headers)
        self.status = status
        self.code = code
        self.reason = reason
        self.hint = hint
        self.headers = headers
        self.topic = topic

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.reason}; {self.hint}"


def error_of(error: ProtocolError) -> HttpError:
    """Return the HTTP answer to a command that the protocol refuses."""
    code = ErrorCode(error.code)
    status = STATUS.get(code, HTTPStatus.BAD_REQUEST)
    reason, _, hint = error.reason.partition("; ")
    headers = {"Retry-After": str(RETRY_SECONDS)} if code.retry else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return HttpError(status, code, reason, hint or "see the wire protocol", headers)


def unavailable() -> HttpError:
    """Return the answer while the log cannot be reached."""
    reason, hint = "the server cannot reach its log now", "try again in a few seconds"
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, reason, hint, headers)


@dataclass(frozen=True)
class Response:
    """A whole answer.

    Attributes:
        status: the HTTP status.
        body: its bytes; none for 204 and 304.
        headers: beside the length and what all answers have.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, text: str, status: int = 200, **headers: str) -> Response:
        """Return an answer that holds JSON text."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, text.encode(), {"Content-Type": "application/json", **named})

    @classmethod
    def of_error(cls, error: HttpError) -> Response:
        """Return the answer that refuses a request."""
        fields = {
            "type": "error",
            "code": error.code,
            "message": error.reason,
            "hint": error.hint,
            "retry": error.status in (408, 429, 503),
        }
        if error.topic is not None:
            fields["topic"] = error.topic
        text = json.dumps(fields, separators=(",", ":"))
        headers = {"Content-Type": "application/json", **error.headers}
        return cls(error.status, text.encode(), headers)

    @property
    def all_headers(self) -> dict[str, str]:
        """Its headers, with those that all answers have."""
        return {
            "Cache-Control": "no-store, private",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Cookie, Authorization, Origin",
            **self.headers,
        }


class Request:
    """A request's head.

    Attributes:
        method: in capitals.
        headers: by name in small letters; several of a name are one list, as HTTP has it.
    """

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The values of the query by name.

        Raises:
            HttpError: it has too many fields to be one of ours.
        """
        text = self.scope.get("query_string", b"").decode("latin-1")
        most = OTHER_FIELDS + FIELDS_A_TOPIC * conf.get().limits.topics
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=most)
        except ValueError:
            reason, hint = f"the query has more than {most} fields", "follow fewer topics"
            raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint) from None

    def value(self, name: str) -> str | None:
        """Return a value of the query, the last of its name; None if there is none."""
        values = self.query.get(name)
        return values[-1] if values else None

    def number(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Return a whole number of the query, cut to a maximum.

        Raises:
            HttpError: it is none, or below the minimum.
        """
        text = self.value(name)
        return default if text is None else whole_number(name, text, minimum, maximum)

    def check(self, methods: Sequence[str]) -> None:
        """Refuse another method than these, and a version of the protocol that is not spoken.

        Raises:
            HttpError: it is refused.
        """
        if self.method not in methods:
            allowed = ", ".join(methods)
            raise HttpError(
                405,
                "method_not_allowed",
                f"{self.method} is not answered here",
                f"use {allowed}",
                {"Allow": allowed},
            )
        try:
            check_version(self.value("v"))
        except ProtocolError as error:
            raise error_of(error) from None

    def check_origin(self, secure: bool | None) -> None:
        """Refuse a page of another site, and a request that names no host or several.

        Raises:
            HttpError: it is refused.
        """
        if not origins.has_one_host(self.scope):
            reason = "the request does not say which host it is for, or names several"
            hint = "send one Host header, as HTTP/1.1 asks for; a proxy has to pass it on"
            raise HttpError(400, "bad_host", reason, hint)
        if not origins.is_allowed(self.scope, secure):
            reason = "pages of this origin, or requests for this host, are not answered"
            hint = "add the origin to REALTIME['ALLOWED_ORIGINS'], or the host to ALLOWED_HOSTS"
            raise HttpError(403, "forbidden_origin", reason, hint)

    def cors(self, secure: bool | None) -> dict[str, str]:
        """Return the headers that let a page of another origin that is allowed read the answer.

        Source: Fetch, section 3.2 (CORS protocol).
        """
        origin = self.headers.get("origin")
        if origin is None or not origins.is_allowed(self.scope, secure):
            return {}
        headers = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "ETag, Retry-After",
        }
        if self.is_preflight:
            headers |= {
                "Access-Control-Allow-Methods": "GET, HEAD, POST",
                "Access-Control-Allow-Headers": ALLOWED_HEADERS,
                "Access-Control-Max-Age": "600",
            }
        return headers

    @property
    def is_preflight(self) -> bool:
        """Whether a browser asks what a page of another origin may send."""
        return self.method == "OPTIONS" and "access-control-request-method" in self.headers

    async def identify(self) -> Identity:
        """Return who asks.

        Raises:
            HttpError: the token is refused.
        """
        try:
            return await identify(self.scope)
        except ProtocolError as error:
            raise error_of(error) from None


def whole_number(name: str, text: str, minimum: int, maximum: int) -> int:
    """Return the whole number that a field of the query holds, cut to a maximum.

    Raises:
        HttpError: it is none, or below the minimum.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= minimum):
        reason = f"{name} is not a whole number of {minimum} or more"
        hint = f"send {name} from {minimum} to {maximum}"
        raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint)
    return min(int(text), maximum)


async def answer(
    request: Request, send: Send, secure: bool | None, work: Coroutine[Any, Any, Response | None]
) -> None:
    """Send the answer that some work comes to; what refuses the request or fails is one too.

    Args:
        request: what is answered.
        send: the server's.
        secure: whether its transport speaks TLS, where that is known.
        work: comes to the answer, or to None where there is nobody to answer or nothing left.
    """
    cors = request.cors(secure)
    if request.is_preflight and cors:
        work.close()
        await _respond(send, Response(HTTPStatus.NO_CONTENT, headers=cors), without_body=True)
        return
    try:
        response = await work
    except Exception as error:
        response = response_to(error)
    if response is not None:
        response = replace(response, headers={**response.headers, **cors})
        await _respond(send, response, without_body=request.method == "HEAD")


def response_to(error: Exception) -> Response:
    """Return the answer to a request that failed, which gives nothing else away."""
    if isinstance(error, HttpError):
        return Response.of_error(error)
    if isinstance(error, StoreError):
        logger.warning("a request could not be answered: %s", error)
        return Response.of_error(unavailable())
    logger.error("a request could not be answered", exc_info=error)
    if isinstance(error, DatabaseError | InterfaceError):
        return Response.of_error(unavailable())
    reason, hint = "the server failed to answer this", "its log says why"
    failure = HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorCode.FAILED, reason, hint)
    return Response.of_error(failure)


async def _respond(send: Send, response: Response, *, without_body: bool) -> None:
    headers = response.all_headers
    if response.status not in (204, 304):
        headers["Content-Length"] = str(len(response.body))
    await send(
        {"type": "http.response.start", "status": int(response.status), "headers": encoded(headers)}
    )
    await send({"type": "http.response.body", "body": b"" if without_body else response.body})


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]


async def read_body(request: Request, receive: Receive, limit: int) -> bytes | None:
    """Return the body; None if the client left before it was here.

    Raises:
        HttpError: it is longer than the limit (bytes), or says so, and is not read on; or it is not
            here in ``BODY_SECONDS``.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:LENGTH_DIGITS]) > limit:
        raise _too_long(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_parts(receive, limit)
    except TimeoutError:
        reason = f"the body was not here within {BODY_SECONDS:g} seconds, and nothing was run"
        hint = "send as many bytes as Content-Length says, and send them at once"
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", reason, hint) from None


async def _read_parts(receive: Receive, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_long(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_long(limit: int) -> HttpError:
    reason = f"the body is longer than {limit} bytes"
    return HttpError(413, ErrorCode.TOO_LARGE, reason, "send less at once")
