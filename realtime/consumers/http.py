"""Requests and responses of the HTTP transports.

The transports are ASGI applications instead of Django views, because a view that streams needs a
thread for each client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from django.db import DatabaseError, InterfaceError

from realtime import conf
from realtime.auth import origins
from realtime.auth.addresses import set_source
from realtime.auth.users import Identity, identify
from realtime.consumers.languages import activate_language
from realtime.exceptions import ProtocolError, RealtimeError, StoreError
from realtime.protocol.frames import ErrorCode, check_version, cut_error, escape_html
from realtime.repeated_errors import log_error
from realtime.user_code import source
from realtime.writers.asgi import Send

__all__ = [
    "HttpError",
    "Receive",
    "Request",
    "Response",
    "answer",
    "encode_headers",
    "error_response",
    "http_error",
    "read_body",
    "store_unavailable",
    "whole_number",
]

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]

ALLOWED_HEADERS = "Authorization, Content-Type, If-None-Match, Last-Event-ID, X-Realtime-Origin"
FIELDS_PER_TOPIC = 3  # of a query: topic, since and last
OTHER_FIELDS = 1_000  # more are parsed, so that an error can name the first topic over the limit
BODY_SECONDS = 30.0  # for a command's body to arrive: 64 KB over the slowest mobile networks
LENGTH_DIGITS = 18  # of a Content-Length that are read; int() fails on thousands of digits
RETRY_SECONDS = 5  # in Retry-After while the log cannot be reached; a restart takes about as long

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
        code: a word for programs; a code of the wire protocol if there is one for the error.
        reason: what was wrong.
        hint: what to do.
        headers: additional headers of the answer.
        topic: the topic to blame, if the request asked for several; else None.
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


def http_error(error: ProtocolError) -> HttpError:
    """Return the HTTP error for an error of the wire protocol."""
    code = ErrorCode(error.code)
    status = STATUS.get(code, HTTPStatus.BAD_REQUEST)
    reason, hint = error.reason, ""
    if code != ErrorCode.INVALID:  # those are the project's messages, which are for people
        reason, _, hint = reason.partition("; ")
    headers = {"Retry-After": str(RETRY_SECONDS)} if code.retry else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return HttpError(status, code, reason, hint or "see the wire protocol", headers)


def store_unavailable() -> HttpError:
    """Return the error for a log that cannot be reached."""
    reason, hint = "the server cannot reach its log now", "try again in a few seconds"
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, reason, hint, headers)


@dataclass(frozen=True)
class Response:
    """A complete answer.

    Attributes:
        status: the HTTP status.
        body: empty for 204 and 304.
        headers: in addition to Content-Length and the headers that all answers have.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, text: str, status: int = 200, **headers: str) -> Response:
        """Return an answer with JSON text as its body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = escape_html(text).encode()
        return cls(status, body, {"Content-Type": "application/json", **named})

    @classmethod
    def of_error(cls, error: HttpError) -> Response:
        """Return the answer that refuses a request."""
        fields = {
            "type": "error",
            "code": error.code,
            "message": cut_error(error.reason),
            "hint": cut_error(error.hint),
            "retry": error.status in (408, 429, 503),
        }
        if error.topic is not None:
            fields["topic"] = error.topic
        text = json.dumps(fields, separators=(",", ":"))
        return cls.of_json(text, error.status, **error.headers)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers of this answer and those that all answers have."""
        return {
            "Cache-Control": "no-store, private",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Cookie, Authorization, Origin",
            **self.headers,
        }


class Request:
    """The head of a request.

    Attributes:
        scope: the ASGI scope.
        method: in upper case.
        headers: by lower-case name; repeated headers are joined by commas, as HTTP allows.
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
        """The values of the query, by name.

        Raises:
            HttpError: the query has more fields than the allowed topics can need.
        """
        text = self.scope.get("query_string", b"").decode("latin-1")
        max_fields = OTHER_FIELDS + FIELDS_PER_TOPIC * conf.get().limits.topics
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=max_fields)
        except ValueError:
            reason, hint = f"the query has more than {max_fields} fields", "follow fewer topics"
            raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint) from None

    def value(self, name: str) -> str | None:
        """Return the last value of a field of the query; None if there is none, or an empty one."""
        return self.query.get(name, [""])[-1] or None

    def number(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Return a whole number from the query, capped at ``maximum``.

        Raises:
            HttpError: the value is not a whole number, or is below the minimum.
        """
        text = self.value(name)
        return default if text is None else whole_number(name, text, minimum, maximum)

    def check(self, methods: Sequence[str]) -> None:
        """Check the method and the version of the wire protocol.

        Raises:
            HttpError: the method is not one of these, or the server does not speak the version.
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
            raise http_error(error) from None

    def check_origin(self, secure: bool | None) -> None:
        """Check that the request comes from an allowed page and names exactly one host.

        Args:
            secure: whether the server's transport speaks TLS; None if that is not known.

        Raises:
            HttpError: the origin or the host is not allowed, or there is not exactly one host.
        """
        if not origins.has_one_host(self.scope):
            reason = "the request does not say which host it is for, or names several"
            hint = "send one Host header, as HTTP/1.1 requires; a proxy has to pass it on"
            raise HttpError(400, "bad_host", reason, hint)
        if not origins.is_allowed(self.scope, secure):
            reason = "pages of this origin, or requests for this host, are not answered"
            hint = "add the origin to REALTIME['ALLOWED_ORIGINS'], or the host to ALLOWED_HOSTS"
            raise HttpError(403, "forbidden_origin", reason, hint)

    def cors(self, secure: bool | None) -> dict[str, str]:
        """Return the headers that allow a page of another allowed origin to read the answer.

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
        """Whether this is a CORS preflight request."""
        return self.method == "OPTIONS" and "access-control-request-method" in self.headers

    async def identify(self) -> Identity:
        """Return the client's identity.

        Raises:
            HttpError: the token is refused, or authentication failed.
        """
        try:
            return await identify(self.scope)
        except ProtocolError as error:
            raise http_error(error) from None


def whole_number(name: str, text: str, minimum: int, maximum: int) -> int:
    """Return the whole number in a field of the query, capped at ``maximum``.

    Raises:
        HttpError: the text is not a whole number, or is below the minimum.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= minimum):
        reason = f"{name} is not a whole number of {minimum} or more"
        hint = f"send {name} from {minimum} to {maximum}"
        raise HttpError(400, ErrorCode.BAD_FRAME, reason, hint)
    return min(int(text), maximum)


async def answer(
    request: Request, send: Send, secure: bool | None, work: Coroutine[Any, Any, Response | None]
) -> None:
    """Send the response that a coroutine returns, or the error that it raises.

    A CORS preflight request is answered without running the coroutine.

    Args:
        request: the request to answer.
        send: the server's ``send``.
        secure: whether the server's transport speaks TLS; None if that is not known.
        work: returns the response, or None if the client has left or was answered already.
    """
    activate_language(request.scope)
    token = set_source(request.scope)
    cors = request.cors(secure)
    if request.is_preflight and cors:
        work.close()
        await _respond(send, Response(HTTPStatus.NO_CONTENT, headers=cors), without_body=True)
        return
    try:
        response = await work
    except Exception as error:
        response = error_response(error)
    finally:
        source.reset(token)  # an open stream asks the project nothing more, so free the name
    if response is not None:
        response = replace(response, headers={**response.headers, **cors})
        await _respond(send, response, without_body=request.method == "HEAD")


def error_response(error: Exception) -> Response:
    """Return the answer to a request that failed; it reveals nothing of an unexpected error."""
    if isinstance(error, HttpError):
        return Response.of_error(error)
    if isinstance(error, ProtocolError):
        return Response.of_error(http_error(error))
    log_error("request", error, "a request could not be answered")
    if isinstance(error, DatabaseError | InterfaceError | StoreError):
        return Response.of_error(store_unavailable())
    reason, hint = "the server failed to answer this request", "its log says why"
    failure = HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorCode.FAILED, reason, hint)
    return Response.of_error(failure)


async def _respond(send: Send, response: Response, *, without_body: bool) -> None:
    headers = response.all_headers
    if response.status not in (204, 304):
        headers["Content-Length"] = str(len(response.body))
    await send(
        {
            "type": "http.response.start",
            "status": int(response.status),
            "headers": encode_headers(headers),
        }
    )
    await send({"type": "http.response.body", "body": b"" if without_body else response.body})


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers in the form of ASGI."""
    return [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]


async def read_body(request: Request, receive: Receive, limit: int) -> bytes | None:
    """Return the body of a request; None if the client left before it was complete.

    Args:
        request: the request; its ``Content-Length`` is checked first.
        receive: the server's ``receive``.
        limit: the most bytes that are allowed.

    Raises:
        HttpError: the body is longer than the limit, or takes more than ``BODY_SECONDS``.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:LENGTH_DIGITS]) > limit:
        raise _too_long(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_parts(receive, limit)
    except TimeoutError:
        reason = f"the body did not arrive within {BODY_SECONDS:g} seconds, and nothing was run"
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
