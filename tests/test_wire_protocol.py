"""docs/wire-protocol.md says what the code does."""

import json
import re
from pathlib import Path

import pytest

from realtime.commands import parse
from realtime.conf import Limits
from realtime.frames import CloseCode, ErrorCode

TEXT = (Path(__file__).parents[1] / "docs" / "wire-protocol.md").read_text()
FILLED = TEXT.replace("<cursor>", "e.1.00000000").replace('"data":…', '"data":null')
FRAMES = [json.loads(frame) for frame in re.findall(r'\{"type":"(?:[^`\n])*\}(?=[`\n])', FILLED)]
SERVER_TYPES = {
    "closing", "error", "event", "heartbeat", "ok", "pong", "reset", "result", "subscribed",
    "unsubscribed", "welcome",
}  # fmt: skip


def table(heading):
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_frame_of_the_server_is_shown():
    assert {frame["type"] for frame in FRAMES} >= SERVER_TYPES


@pytest.mark.parametrize(
    "command", [frame for frame in FRAMES if frame["type"] not in SERVER_TYPES], ids=json.dumps
)
def test_every_command_that_is_shown_is_understood(command):
    assert parse(json.dumps(command), 65_536).id == command.get("id")


def test_every_error_code_is_explained():
    documented = {code: retry == "yes" for code, _, retry in table("Errors")}
    assert documented == {str(code): code.retry for code in ErrorCode}


def test_every_close_code_is_explained():
    documented = {int(code): reason for code, reason, _ in table("Closing")}
    assert documented == {int(code): code.reason for code in CloseCode}


def test_the_limits_have_the_defaults_that_are_told():
    for names, told, _ in table("Limits"):
        numbers = [int(number.replace(",", "")) for number in re.findall(r"\b[\d,]*\d\b", told)]
        expected = [getattr(Limits(), name) for name in re.findall(r"\w+", names)]
        assert numbers[: len(expected)] == expected
