"""`manage.py realtime`: its output, its errors and its exit codes."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings

from realtime import log
from realtime import publish as publish_event
from realtime.exceptions import StoreUnavailable
from realtime.hub.connection import Subscription
from realtime.management.console import printable
from realtime.protocol.events import Cursor
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from tests.support.server import DEADLINE, Server
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("two_aliases"),
]


def run(*words: str, **options: Any) -> str:
    output = io.StringIO()
    call_command("realtime", *words, stdout=output, **options)
    return output.getvalue()


def frames(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# publish


def test_publish_appends_the_event_and_prints_its_number() -> None:
    assert run("publish", "orders.42", "shipped", '{"eta": "2026-11-24"}') == (
        "orders.42: shipped is #1\n"
    )
    assert run("publish", "orders.42", "packed") == "orders.42: packed is #2\n"
    events = log.history("orders.42")
    assert [(event.name, event.data) for event in events] == [
        ("shipped", {"eta": "2026-11-24"}),
        ("packed", None),
    ]


def test_publish_as_json_prints_the_frame_that_clients_receive() -> None:
    (frame,) = frames(run("publish", "orders.42", "shipped", "1", "--json"))
    assert (frame["type"], frame["event"], frame["data"], frame["seq"]) == (
        "event",
        "shipped",
        1,
        1,
    )
    assert frame["cursor"] == str(log.head("orders.42"))


def test_publish_reads_the_data_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a":\n[1, 2]}'))
    run("publish", "orders.42", "shipped", "-")
    assert log.history("orders.42")[0].data == {"a": [1, 2]}


def test_an_ephemeral_event_is_not_in_the_log() -> None:
    assert "not in the log" in run("publish", "orders.42", "typing", "--ephemeral")
    assert "cursor" not in frames(run("publish", "orders.42", "typing", "--ephemeral", "--json"))[0]
    assert log.history("orders.42") == []


def test_publish_in_a_transaction_waits_for_its_commit() -> None:
    with transaction.atomic():
        assert "waits for the transaction's commit" in run("publish", "orders.42", "shipped")
        assert run("publish", "orders.42", "shipped", "--json") == "null\n"
        assert log.head("orders.42").seq == 0
    wait_until(lambda: log.head("orders.42").seq == 2, "both events are in the log")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ordrs.42", "x"], "the nearest patterns are 'orders.<int:pk>'"),
        (["or ders", "x"], "not a valid topic name"),
        (["orders.42", "a b"], "not a valid event name"),
        (["orders.42", "x", '{"a":\n1 x}'], "at line 2, column 3"),
        (["orders.42", "x", "hello"], """'"hello"'"""),
        (["orders.42", "x", ""], "at line 1, column 1"),
        (["orders.42", "x", "[NaN]"], "data[0] cannot be sent as JSON"),
        (["orders.42", "x", "[" * 5_000 + "]" * 5_000], "deep"),
        (["orders.42", "x", "9" * 5_000], "cannot be sent"),
        (["orders.42", "x", f'"{"x" * 70_000}"'], "65536 are allowed"),
        (["orders.42", "x", "1", "--using", "nowhere"], "nowhere"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_publish_refuses_a_wrong_call_with_exit_code_2(words: list[str], said: str) -> None:
    with pytest.raises(CommandError) as caught:
        run("publish", *words)
    assert said in str(caught.value)
    if "--using" not in words:  # there argparse exits with 2 itself
        assert caught.value.returncode == 2
    assert log.head("orders.42").seq == 0


def unavailable(*args: object, **kwargs: object) -> Any:
    raise StoreUnavailable("SomeStore", "connection refused")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("append", ["publish", "orders.42", "x"]),
        ("heads", ["listen", "orders.42"]),
        ("topics", ["trim"]),
        ("heads", ["new-epoch", "orders.42"]),
    ],
)
def test_an_unavailable_store_is_reported_with_exit_code_1(
    method: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_store(), method, unavailable)
    with pytest.raises(CommandError, match="connection refused") as caught:
        run(*words)
    assert caught.value.returncode == 1


@override_settings(REALTIME={"STROE": {}})
def test_wrong_settings_are_reported() -> None:
    with pytest.raises(CommandError, match=r"STROE.*[^.]\.$"):
        run("publish", "orders.42", "x")


@override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}})
@pytest.mark.parametrize(
    "words",
    [
        ["publish", "orders.42", "x"],
        ["publish", "orders.42", "x", "--ephemeral"],
        ["listen", "orders.42"],
        ["trim"],
        ["new-epoch", "orders.42"],
    ],
)
def test_a_store_that_is_not_shared_is_refused(words: list[str]) -> None:
    with pytest.raises(CommandError, match=r"MemoryStore is not shared: .* inside each process"):
        run(*words)
    assert list(get_store().topics()) == []


# trim, new-epoch


def fill(topic: str, count: int) -> None:
    from realtime.protocol.events import Draft

    get_store().append(topic, [Draft("tick", str(n)) for n in range(count)])


def test_trim_prints_what_it_removed() -> None:
    fill("tiny.a", 8)
    fill("tiny.b", 6)
    fill("orders.42", 3)
    fill("gone.1", 3)
    assert run("trim", "tiny.a") == "tiny.a: 3 events removed\n3 events removed from 1 of 1 logs\n"
    text = run("trim")
    assert "tiny.b: 1 event removed\n" in text
    assert "gone.1: no pattern matches it any more" in text
    assert text.endswith("1 event removed from 1 of 3 logs\n")
    fill("tiny.a", 1)
    (report,) = frames(run("trim", "--json"))
    assert report == {"removed": {"tiny.a": 1}, "unregistered": ["gone.1"]}


def test_trim_does_not_report_internal_logs() -> None:
    presence = presence_log("room.lobby")
    get_store().change_members(presence, "a", {"user.1": '{"id":"user.1"}'}, [])
    assert presence in get_store().topics()
    assert run("trim") == "0 events removed from 0 of 0 logs\n"
    assert frames(run("trim", "--json")) == [{"removed": {}, "unregistered": []}]


def test_trim_of_an_unknown_topic_removes_nothing() -> None:
    fill("tiny.a", 8)
    with pytest.raises(CommandError, match=r"no registered pattern matches 'tinny\.b'"):
        run("trim", "tiny.a", "tinny.b")
    assert len(log.history("tiny.a")) == 8


def test_new_epoch_changes_the_cursors_and_keeps_the_events() -> None:
    fill("orders.42", 3)
    before = log.head("orders.42")
    assert "its followers are reset once" in run("new-epoch", "orders.42")
    after = log.head("orders.42")
    assert (after.seq, after.epoch == before.epoch) == (3, False)
    (report,) = frames(run("new-epoch", "orders.42", "--json"))
    assert report == {"topic": "orders.42", "cursor": str(log.head("orders.42"))}
    assert len(log.history("orders.42")) == 3


def test_new_epoch_with_one_unknown_topic_changes_none() -> None:
    fill("orders.42", 3)
    before = log.head("orders.42")
    with pytest.raises(CommandError, match=r"no registered pattern matches 'ordrs\.42'") as caught:
        run("new-epoch", "orders.42", "ordrs.42")
    assert caught.value.returncode == 2
    assert log.head("orders.42") == before


# listen in this process: events that are stored already


def test_listen_prints_the_newest_events_and_stops_after_count() -> None:
    for n in range(5):
        publish_event("orders.42", "tick", {"n": n})
    notices = io.StringIO()
    lines = run("listen", "orders.42", "--last", "3", "--count", "2", stderr=notices).splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        'orders.42 #3 tick {"n": 2}',
        'orders.42 #4 tick {"n": 3}',
    ]
    assert notices.getvalue().startswith("Following orders.42 from ")


def test_listen_as_json_prints_frames_whose_cursors_resume() -> None:
    fill("orders.42", 3)
    words = ["listen", "orders.42", "--json", "--count", "1"]
    first, event = frames(run(*words, "--last", "3"))
    assert (first["type"], event["type"], event["seq"]) == ("subscribed", "event", 1)
    first, event = frames(run(*words, "--since", event["cursor"]))
    assert (first["recovered"], first["replayed"], event["seq"]) == (True, 2, 2)
    _, event = frames(run(*words, "--since", "@1"))
    assert event["seq"] == 1


def test_listen_from_a_trimmed_cursor_prints_a_reset() -> None:
    fill("tiny.a", 8)
    cursor = get_store().locate("tiny.a", last=8)
    run("trim")
    old = str(Cursor(cursor.epoch, cursor.seq + 1, 7))
    output = io.StringIO()

    class Ends(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    call_command("realtime", "listen", "tiny.a", "--since", old, stdout=(output := Ends()))
    assert output.getvalue().startswith("tiny.a was reset")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ordrs.42"], "nearest patterns"),
        (["orders.42", "--since", "yesterday"], "'yesterday' is not a cursor"),
        (["orders.42", "orders.43", "--since", "e.1.00000000"], "belongs to one topic"),
        (["orders.42", "--since", "@1", "--last", "1"], "not allowed with"),
        (["orders.42", "--last", "-1"], "not a whole number from 0 on"),
        (["orders.42", "--count", "0"], "not a number from 1 on"),
    ],
)
def test_listen_refuses_a_wrong_call(words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run("listen", *words)


def test_a_failed_replay_ends_the_listening_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Subscription, frames: object) -> None:
        raise RuntimeError("a fault")

    fill("orders.42", 3)
    monkeypatch.setattr(Subscription, "_catch_up", fails)
    with pytest.raises(CommandError, match="failed"):
        run("listen", "orders.42", "--last", "1")


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ('"naïve"', "utf-8", '"naïve"'),
        ('"naïve"', "ascii", '"na\\u00efve"'),
        ('"\x9b31m"', "utf-8", '"\\u009b31m"'),
        ('"\u202egnp"', None, '"\\u202egnp"'),
        ('"𝄞"', "latin-1", '"\\ud834\\udd1e"'),
    ],
)
def test_what_a_terminal_would_interpret_or_cannot_show_is_escaped(
    text: str, encoding: str | None, shown: str
) -> None:
    assert printable(text, encoding) == shown
    assert json.loads(shown) == json.loads(text)


# listen in a process of its own: new events, and its end


# Like `python -m django`, but Ctrl-C works even if these tests run in the background of a script:
# there the shell ignores the signal, and children inherit that.
INTERRUPTIBLE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("django", run_name="__main__", alter_sys=True)
"""


class Listening:
    """A process that runs `listen`.

    Attributes:
        lines: its output so far.
    """

    def __init__(
        self, project: Server, words: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "realtime", "listen", *words],
            env=project.env | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read(self) -> None:
        """Start to collect its output."""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def wait_following(self) -> None:
        """Wait until it reports that it follows a topic; only without --json."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith("Following"), line + self.process.stderr.read()

    def wait_lines(self, count: int) -> list[str]:
        wait_until(lambda: len(self.lines) >= count, f"{count} lines are printed", DEADLINE)
        return self.lines

    def end(self) -> tuple[int, str]:
        """Wait for the exit; return the exit code and the rest of stderr."""
        code = self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A migrated project; its server does not run."""
    project = Server(tmp_path_factory.mktemp("listen"))
    project.run("from django.core.management import call_command; call_command('migrate', '-v0')")
    return project


@pytest.fixture
def listen(project: Server) -> Iterator[Callable[..., Listening]]:
    with ExitStack() as stack:

        def start(*words: str, **environment: str) -> Listening:
            listening = Listening(project, words, environment)
            stack.enter_context(listening.process)
            stack.callback(listening.process.kill)
            return listening

        yield start


def test_listen_prints_what_another_process_publishes_until_ctrl_c(
    listen: Callable[..., Listening], project: Server
) -> None:
    listening = listen("public.a", "orders.42")
    listening.wait_following()
    listening.wait_following()
    listening.read()
    project.publish("public.a", 3)
    project.run("from realtime import publish; publish('orders.42', 'typing', ephemeral=True)")
    lines = listening.wait_lines(4)
    assert [line.split()[3] for line in lines] == ["#1", "#2", "#3", "ephemeral"]
    listening.process.send_signal(signal.SIGINT)
    assert listening.end() == (0, "")


def test_listen_prints_a_reset(listen: Callable[..., Listening], project: Server) -> None:
    listening = listen("public.b", "--json", "--count", "1")
    listening.read()
    listening.wait_lines(1)
    project.run("from realtime import log; log.new_epoch('public.b')")
    assert json.loads(listening.wait_lines(2)[1])["type"] == "reset"
    project.publish("public.b", 1)
    assert listening.end() == (0, "")
    assert [json.loads(line)["type"] for line in listening.lines] == [
        "subscribed",
        "reset",
        "event",
    ]


def test_listen_interrupted_before_its_count_exits_with_130(
    listen: Callable[..., Listening],
) -> None:
    listening = listen("public.c", "--count", "1")
    listening.wait_following()
    listening.process.send_signal(signal.SIGINT)
    assert listening.end() == (130, "")


def test_listen_ends_when_the_reader_of_its_pipe_leaves(listen: Callable[..., Listening]) -> None:
    listening = listen("public.d")
    listening.wait_following()
    assert listening.process.stdout is not None
    listening.process.stdout.close()
    assert listening.end() == (0, "")


def test_ctrl_c_ends_listen_while_its_pipe_is_not_read(
    listen: Callable[..., Listening], project: Server
) -> None:
    project.run(
        "from realtime import publish_many\n"
        "publish_many([('public.e', 'tick', 'x' * 1000) for n in range(300)])"
    )
    listening = listen("public.e", "--last", "300")
    listening.wait_following()
    state = Path(f"/proc/{listening.process.pid}/wchan")
    if state.exists() and os.access(state, os.R_OK):
        wait_until(lambda: "pipe" in state.read_text() or state.read_text() == "0", "it is blocked")
    listening.process.send_signal(signal.SIGINT)
    assert listening.end() == (0, "")


def test_listen_with_an_ascii_terminal_still_prints_json(
    listen: Callable[..., Listening], project: Server
) -> None:
    project.run("from realtime import publish; publish('public.f', 'tick', 'naïve')")
    words = ["public.f", "--last", "1", "--count", "1", "--json"]
    listening = listen(*words, PYTHONIOENCODING="ascii")
    listening.read()
    assert listening.end() == (0, "")
    assert json.loads(listening.wait_lines(2)[1])["data"] == "naïve"
