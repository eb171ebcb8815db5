"""docs/wire-protocol.md agrees with the code."""

import json
import re
from pathlib import Path

import pytest

from realtime.conf import Limits
from realtime.protocol.commands import parse
from realtime.protocol.frames import CloseCode, ErrorCode, members_frames

TEXT = (Path(__file__).parents[1] / "docs" / "wire-protocol.md").read_text()
FILLED = TEXT.replace("<cursor>", "e.1.00000000").replace('"data":…', '"data":null')
FRAMES = [json.loads(frame) for frame in re.findall(r'\{"type":"(?:[^`\n])*\}(?=[`\n])', FILLED)]
SERVER_TYPES = {
    "closing", "error", "event", "heartbeat", "join", "leave", "ok", "pong", "reset", "result",
    "subscribed", "unsubscribed", "welcome",
}  # fmt: skip


def is_from_server(frame):
    is_list = frame["type"] == "members" and "members" in frame  # the command has the same name
    return is_list or frame["type"] in SERVER_TYPES


def table(heading):
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_server_frame_is_documented():
    shown = {frame["type"] for frame in FRAMES if is_from_server(frame)}
    assert shown == {*SERVER_TYPES, "members"}


def test_documented_member_lists_are_sent_like_this():
    shown = [frame for frame in FRAMES if is_from_server(frame) and frame["type"] == "members"]
    for frame in shown:
        texts = [json.dumps(member) for member in frame["members"]]
        sent = members_frames(
            frame["topic"], texts, frame["version"], frame.get("id"), count=frame.get("count")
        )
        assert [json.loads(text) for text in sent] == [frame]


@pytest.mark.parametrize(
    "command", [frame for frame in FRAMES if not is_from_server(frame)], ids=json.dumps
)
def test_every_documented_command_is_understood(command):
    assert parse(json.dumps(command), 65_536).id == command.get("id")


def test_every_error_code_is_documented():
    documented = {code: retry == "yes" for code, _, retry in table("Errors")}
    assert documented == {str(code): code.retry for code in ErrorCode}


def test_every_close_code_is_documented():
    documented = {int(code): reason for code, reason, _ in table("Closing")}
    assert documented == {int(code): code.reason for code in CloseCode}


def test_the_documented_limits_are_the_defaults():
    for names, default, _ in table("Limits"):
        numbers = [int(number.replace(",", "")) for number in re.findall(r"\b[\d,]*\d\b", default)]
        expected = [getattr(Limits(), name) for name in re.findall(r"\w+", names)]
        assert numbers[: len(expected)] == expected
