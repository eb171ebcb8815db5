"""``POST send``: run one command of a client that has no WebSocket.

A command needs no other connection of the client, so every node can run it, without sticky
sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from realtime import conf
from realtime.auth import origins, users
from realtime.auth.users import Identity
from realtime.consumers.handlers import log_failure, run_call, run_members, run_publish
from realtime.consumers.http import (
    HttpError,
    Receive,
    Request,
    Response,
    answer,
    http_error,
    read_body,
)
from realtime.consumers.rate_limits import limit_command, limit_publish
from realtime.exceptions import ProtocolError
from realtime.protocol.commands import Call, Command, Members, Publish, parse
from realtime.protocol.dialogue import Dialogue, refusal
from realtime.protocol.frames import ErrorCode
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure

__all__ = ["send_command"]

CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})  # ASCII is a subset of UTF-8


async def send_command(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Run one command and answer it, as an ASGI application."""
    request = Request(scope)
    secure = is_secure(send)
    await answer(request, send, secure, _answer(request, receive, secure))


async def _answer(request: Request, receive: Receive, secure: bool | None) -> Response | None:
    request.check(("POST",))
    request.check_origin(secure)
    _check_type(request.headers.get("content-type", ""))
    limits = conf.get().limits
    body = await read_body(request, receive, limits.frame_bytes)
    if body is None:
        return None
    identity = await request.identify()
    is_by_cookie = users.bearer(request.scope) is None and users.has_session(request.scope)
    if is_by_cookie and not origins.has_origin(request.scope):
        reason = "a request with a session cookie does not say which page it is from"
        raise HttpError(403, "forbidden_origin", reason, "send an Origin header, or no cookie")
    limit_command(request.scope, identity.user)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        reason = "the body is not UTF-8"
        raise HttpError(400, ErrorCode.BAD_JSON, reason, "send JSON in UTF-8") from None
    command: Command | None = None
    try:
        command = parse(text, limits.frame_bytes)
        if isinstance(command, Publish):
            limit_publish(request.scope, identity.user, len(body))
        return Response.of_json(await _run(Dialogue(limits), identity, command))
    except HttpError:
        raise
    except Exception as error:
        if command is not None:
            log_failure(command, error)
        raise http_error(refusal(error)) from error


def _check_type(text: str) -> None:
    """Check that the ``Content-Type`` says JSON in UTF-8.

    Raises:
        HttpError: the header names another type or charset, or is missing.
    """
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    if kind != "application/json":
        # A page of another site can send the types of HTML forms without a preflight request.
        hint = "send Content-Type: application/json"
        raise HttpError(415, ErrorCode.BAD_FRAME, f"the body is {kind or 'of no type'}", hint)
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"')
        if name.strip() == "charset" and charset not in CHARSETS:
            reason, hint = f"the body is in {charset or 'no charset'}", "send JSON in UTF-8"
            raise HttpError(415, ErrorCode.BAD_FRAME, reason, hint)


async def _run(dialogue: Dialogue, identity: Identity, command: Command) -> str:
    match command:
        case Publish():
            await run_publish(identity, command)
            return dialogue.ok(command)
        case Call():
            return dialogue.result(command, await run_call(identity, command))
        case Members():
            member_list = await run_members(identity, command)
            members, version = list(member_list.members.values()), member_list.cursor.seq
            return dialogue.members(
                command, members, version, count=member_list.count, max_characters=math.inf
            )[0]
        case _:
            reason = "only publish, call and members can be sent; follow topics by sse, poll or ws"
            raise ProtocolError(ErrorCode.UNSUPPORTED, reason, id=command.id)
