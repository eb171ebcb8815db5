"""`manage.py realtime listen --url`: follow the topics of another site."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from tests.support.server import DEADLINE, Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("listen-url")) as running:
        yield running


@pytest.fixture(scope="module")
def token(site: Server) -> str:
    return site.run(
        "from django.contrib.auth import get_user_model\n"
        "from realtime.auth.tokens import make_token\n"
        "print(make_token(get_user_model().objects.create(username='tess')))"
    ).strip()


def listen(site: Server, *words: str, stderr: io.StringIO | None = None) -> str:
    output = io.StringIO()
    url = f"http://127.0.0.1:{site.port}/realtime/"
    notices = stderr or io.StringIO()
    call_command("realtime", "listen", *words, "--url", url, stdout=output, stderr=notices)
    return output.getvalue()


def test_listen_prints_the_events_of_a_site_with_a_token_from_a_file(
    site: Server, token: str, tmp_path: Path
) -> None:
    site.publish("orders.42", 3)
    path = tmp_path / "token.txt"
    path.write_text(f"{token}\n")
    words = ["orders.42", "--token-file", str(path), "--last", "2", "--count"]
    lines = listen(site, *words, "2").splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "orders.42 #2 tick 1",
        "orders.42 #3 tick 2",
    ]


def test_listen_with_json_prints_frames_with_cursors_to_resume_from(
    site: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALTIME_TOKEN", token)
    site.publish("orders.43", 3)
    words = ["orders.43", "orders.43", "--json", "--count", "1"]
    first, event = map(json.loads, listen(site, *words, "--since", "@1").splitlines())
    assert (first["type"], event["type"], event["seq"]) == ("subscribed", "event", 1)
    text = listen(site, *words, "--since", event["cursor"])
    assert json.loads(text.splitlines()[1])["seq"] == 2


@override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}})
def test_listen_continues_after_a_restart_of_the_site_and_needs_no_store_of_its_own(
    site: Server,
) -> None:
    notices, lines = io.StringIO(), []

    def run() -> None:
        lines.extend(listen(site, "public.a", "public.b", "--count", "4", stderr=notices).split())

    listening = threading.Thread(target=run)
    listening.start()
    wait_until(lambda: notices.getvalue().count("Following") == 2, "it follows", DEADLINE)
    site.publish("public.a", 2)
    site.kill9()
    site.publish("public.b", 2)
    site.start()
    listening.join(DEADLINE * 2)
    assert not listening.is_alive()
    assert [word for word in lines if word.startswith("#")] == ["#1", "#2", "#1", "#2"]
    assert "no connection" in notices.getvalue()


def test_listen_prints_a_reset(site: Server) -> None:
    site.publish("tiny.url", 8)
    cursor = site.run("from realtime import log\nprint(log.head('tiny.url'))").strip()
    old = f"{cursor.partition('.')[0]}.1.00000000"
    output = io.StringIO()
    url = f"http://127.0.0.1:{site.port}/realtime/"

    def run() -> None:
        words = ["tiny.url", "--since", old, "--count", "1", "--url", url]
        call_command("realtime", "listen", *words, stdout=output)

    listening = threading.Thread(target=run)
    listening.start()
    wait_until(output.getvalue, "it was reset", DEADLINE)
    site.publish("tiny.url", 1)
    listening.join(DEADLINE)
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("tiny.url was reset (trimmed); it goes on from ")
    assert [line.split()[3] for line in lines[1:]] == ["#9"]


def test_a_refused_topic_and_an_invalid_token_end_with_exit_code_1(
    site: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="forbidden") as caught:
        listen(site, "public.a", "private.1")
    assert caught.value.returncode == 1
    monkeypatch.setenv("REALTIME_TOKEN", "s3cret")
    with pytest.raises(CommandError, match="4401") as caught:
        listen(site, "public.a")
    assert caught.value.returncode == 1
    assert "s3cret" not in str(caught.value)


def test_the_token_file_is_read_again_when_the_token_has_expired(
    site: Server, token: str, tmp_path: Path
) -> None:
    short = site.run(
        "from datetime import timedelta\n"
        "from django.contrib.auth import get_user_model\n"
        "from realtime.auth.tokens import make_token\n"
        "tess = get_user_model().objects.get(username='tess')\n"
        "print(make_token(tess, expires=timedelta(seconds=3)))"
    )
    path = tmp_path / "token.txt"
    path.write_text(short)
    notices, lines = io.StringIO(), []

    def run() -> None:
        words = ["orders.44", "--token-file", str(path), "--count", "1"]
        lines.extend(listen(site, *words, stderr=notices).splitlines())

    listening = threading.Thread(target=run)
    listening.start()
    wait_until(lambda: "Following" in notices.getvalue(), "it follows", DEADLINE)
    path.write_text(token)  # as a cron job does
    wait_until(lambda: "no connection" in notices.getvalue(), "the token expired", DEADLINE)
    site.publish("orders.44", 1)
    listening.join(DEADLINE)
    assert "orders.44 #1 tick 0" in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        (["or ders"], "not a valid topic name"),
        (["a", "b", "--since", "e.1.00000000"], "belongs to one topic"),
    ],
)
def test_invalid_arguments_end_with_exit_code_2(
    site: Server, words: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        listen(site, *words)
    assert caught.value.returncode == 2


def test_a_url_with_a_secret_is_rejected_without_revealing_it() -> None:
    with pytest.raises(CommandError, match="pass a token as token=") as caught:
        call_command("realtime", "listen", "a", "--url", "https://h/?token=s3cret")
    assert caught.value.returncode == 2
    assert "s3cret" not in str(caught.value)


def test_a_token_file_without_a_url_is_rejected() -> None:
    with pytest.raises(CommandError, match="--token-file needs --url") as caught:
        call_command("realtime", "listen", "orders.1", "--token-file", "x")
    assert caught.value.returncode == 2
