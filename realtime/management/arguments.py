"""Parse the arguments of ``manage.py realtime``, and format its help."""

from __future__ import annotations

import json
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import CommandError, DjangoHelpFormatter

from realtime.exceptions import InvalidCursor, InvalidTopicName, UnknownTopic
from realtime.protocol.commands import parse_since
from realtime.protocol.events import Cursor
from realtime.topics import Topic, resolve

__all__ = [
    "WRONG_CALL",
    "HelpFormatter",
    "add_common",
    "positive",
    "read_data",
    "read_since",
    "read_topic",
    "sentence",
    "whole",
]

WRONG_CALL = 2  # the exit code of argparse for wrong usage; 1 is for other failures
# Django adds these options to the command's own parser, which allows them only before the verb.
_DJANGO_FLAGS = ("--traceback", "--no-color", "--force-color", "--skip-checks")


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Django's formatter, which keeps the line breaks of examples."""


def add_common(parser: ArgumentParser, json_help: str) -> None:
    """Add ``--json``, and allow Django's options after the verb too."""
    parser.add_argument("--json", action="store_true", dest="as_json", help=json_help)
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, default=SUPPRESS, help=SUPPRESS)
    for name in _DJANGO_FLAGS:
        parser.add_argument(name, action="store_true", default=SUPPRESS, help=SUPPRESS)
    parser.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS, help=SUPPRESS
    )


def sentence(error: Exception) -> str:
    """Return the text of an error, with one full stop at its end."""
    return f"{str(error).rstrip('.')}."


def read_topic(name: str) -> Topic:
    """Return the topic of a name from the command line.

    Raises:
        CommandError: there is no such topic.
    """
    try:
        return resolve(name)
    except (InvalidTopicName, UnknownTopic) as error:
        raise CommandError(sentence(error), returncode=WRONG_CALL) from error


def read_data(text: str | None) -> Any:
    """Return the value of JSON text; ``-`` reads standard input, None is no data.

    Raises:
        CommandError: the text is not JSON, or its value cannot be sent.
    """
    if text is None:
        return None
    where = "the data"
    if text == "-":
        where = "standard input"
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            reason = f"standard input is not {error.encoding}: {error.reason}."
            raise CommandError(reason, returncode=WRONG_CALL) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        if where == "the data" and text.isprintable() and not set(text) & set('{}[]":,'):
            reason += f" Put text in double quotes, and protect them from the shell: '\"{text}\"'"
        raise CommandError(reason, returncode=WRONG_CALL) from error
    except RecursionError as error:
        raise CommandError(f"{where} is nested too deeply.", returncode=WRONG_CALL) from error
    except ValueError as error:  # such as for an integer of 5,000 digits
        raise CommandError(f"{where} cannot be sent: {error}.", returncode=WRONG_CALL) from error


def read_since(text: str) -> Cursor | float:
    """Return the cursor or the time (seconds since 1970) in an argument."""
    try:
        return parse_since(text)
    except InvalidCursor as error:
        raise ArgumentTypeError(f"{error}; or give @ and seconds since 1970") from error


def whole(text: str) -> int:
    """Return a whole number of 0 or more."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number of 1 or more."""
    number = whole(text)
    if number == 0:
        raise ArgumentTypeError("0 is not a number from 1 on")
    return number
