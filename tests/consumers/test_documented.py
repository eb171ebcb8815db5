"""The curl commands of docs/wire-protocol.md do what the page says."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime.consumers.http import STATUS
from tests.support.http import StreamReader
from tests.support.server import DEADLINE, Server
from tests.support.services import require

TEXT = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text()
STREAM, FIRST, LONG, PLAIN, SEND = re.findall(r"```console\n(curl .*?)\n```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require(shutil.which("curl"), "curl: put it on PATH (Debian: apt install curl)")
    with Server(tmp_path_factory.mktemp("documented")) as running:
        yield running


@pytest.fixture(scope="module")
def session(server: Server) -> str:
    return server.sign_in("ada")["Cookie"].partition("=")[2]


def start(server: Server, command: str, **variables: str) -> subprocess.Popen[bytes]:
    here = command.replace("localhost:8000", f"127.0.0.1:{server.port}")
    env = os.environ | variables | {"no_proxy": "127.0.0.1"}
    return subprocess.Popen(["sh", "-c", f"exec {here}"], env=env, stdout=-1, stderr=-1)


def answer(server: Server, command: str, **variables: str) -> str:
    out, err = start(server, command, **variables).communicate(timeout=DEADLINE * 2)
    assert out, err.decode()
    return out.decode()


def test_the_polls_receive_events(server: Server, session: str) -> None:
    server.publish("orders.42", 2)
    first = json.loads(answer(server, FIRST, SESSION=session))
    assert first["events"] == []
    waiting = start(server, LONG, SESSION=session, SINCE=first["cursor"])
    server.publish("orders.42", 1, "shipped")
    second: dict[str, Any] = json.loads(waiting.communicate(timeout=DEADLINE * 2)[0])
    assert [event["event"] for event in second["events"]] == ["shipped"]
    again = {"SESSION": session, "SINCE": second["cursor"]}
    head, _, _ = answer(server, PLAIN, ETAG="", **again).partition("\r\n\r\n")
    found = re.search(r"(?i)^etag: (.*)$", head, re.MULTILINE)
    assert found
    assert " 304 " in answer(server, PLAIN, ETAG=found[1].strip(), **again).splitlines()[0]


def test_the_stream_receives_frames(server: Server, session: str) -> None:
    process = start(server, STREAM, SESSION=session)
    assert process.stdout is not None
    reader = StreamReader()
    while len(reader.entries) < 3:
        line = process.stdout.readline()
        assert line, "the stream ended"
        reader.feed(line)
    process.kill()
    process.communicate()
    frames = [json.loads(text) for text, _ in reader.entries]
    assert [frame["type"] for frame in frames] == ["welcome", "subscribed", "subscribed"]
    assert reader.last_id or reader._id


def test_the_command_is_answered(server: Server, session: str) -> None:
    assert json.loads(answer(server, SEND, SESSION=session)) == {"type": "ok"}


def test_every_http_status_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", TEXT.split("## HTTP errors")[1], re.MULTILINE)
    documented = {int(status): text for status, text in rows}
    assert set(documented) >= {int(status) for status in STATUS.values()}
    for code, status in STATUS.items():
        assert f"`{code}`" in documented[int(status)] or code == "busy", code
