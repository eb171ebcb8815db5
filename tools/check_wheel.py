"""Build the wheel, install it outside the checkout and use it by following the README.

A new Django project gets the README's blocks, as CONTRIBUTING.md explains their markers; Daphne
serves it, a WebSocket client follows a topic, and `manage.py realtime publish` publishes to it.
Runs in the `check` environment, for `build` and `websockets`.
"""

import asyncio
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path, PurePosixPath

from tools.environment import ROOT, say

BLOCK = re.compile(
    r"^<!-- integration: (?P<action>\w+)(?: (?P<path>\S+))? -->\s*^```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NEEDED = {"realtime/py.typed", "realtime/static/realtime/realtime.js"}  # whatever git lists
NAME, PASSWORD = "ada", "only for this check"  # of the user that the client is signed in as
START_SECONDS = 30  # for Daphne to listen
EVENT_SECONDS = 30  # from the command's start to the event: the command starts Django first


class Failure(Exception):
    """The check failed; the text says why."""


@dataclass(frozen=True)
class Step:
    """One marked block of the README: `append` or `write` a file, `run` or `publish`."""

    action: str
    path: str | None
    text: str


def steps(readme: str) -> list[Step]:
    """Return the README's marked blocks.

    Raises:
        Failure: a marker is wrong, or the blocks do not end with the publish.
    """
    found = [Step(*match.group("action", "path", "text")) for match in BLOCK.finditer(readme)]
    if len(found) != readme.count("<!-- integration:"):
        raise Failure("README.md: an integration marker is malformed or has no block below it")
    for step in found:
        takes_path = {"append": True, "write": True, "run": False, "publish": False}
        if takes_path.get(step.action) is not (step.path is not None):
            raise Failure(f"README.md: bad marker 'integration: {step.action} {step.path or ''}'")
    if [step.action for step in found].count("publish") != 1 or found[-1].action != "publish":
        raise Failure("README.md: needs one integration block 'publish', as the last one")
    return found


def published(text: str) -> tuple[str, str, object]:
    """Return topic, event and data of the block's `realtime publish` command."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[2:4] == ["realtime", "publish"]:
            topic, event, *data = (word for word in words[4:] if not word.startswith("--"))
            return topic, event, json.loads(data[0]) if data else None
    raise Failure("README.md: the publish block has no 'manage.py realtime publish'")


def build(folder: Path) -> Path:
    """Build the sdist and, from it, the wheel."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Compare the wheel with the package's folder: nothing missing, nothing more."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        licence = Parser().parsestr(archive.read(metadata).decode()).get("License-Expression")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "realtime"]
    listed = run(command, ROOT).splitlines()
    expected = {name for name in listed if (ROOT / name).is_file()}
    if missing := expected - inside:
        raise Failure(f"not in the wheel: {sorted(missing)}")
    if more := inside - expected:
        raise Failure(f"in the wheel by accident: {sorted(more)}")
    if absent := NEEDED - inside:
        raise Failure(f"not in the wheel: {sorted(absent)}")
    if licence != "BSD-3-Clause":
        raise Failure(f"License-Expression is {licence!r}")


class Site:
    """A new Django project in an environment of its own, outside the checkout."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "env" / "bin"
        self.project = folder / "work"
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")},
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }
        self.environ.pop("PYTHONPATH", None)

    def make(self, wheel: Path) -> None:
        """Install the wheel alone, and start a project."""
        venv.create(self.bin.parent, with_pip=True)
        self.project.mkdir()
        pip = [str(self.bin / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", str(wheel)], self.project, self.environ)
        self.run("django-admin startproject mysite .")
        where = self.run("python -c 'import realtime; print(realtime.__file__)'").strip()
        if self.bin.parent not in Path(where).parents:
            raise Failure(f"the project imports {where}, which is not the wheel")

    def run(self, line: str) -> str:
        """Run one line in the project's folder and return its output."""
        return run(["sh", "-c", line], self.project, self.environ)

    def apply(self, step: Step) -> None:
        """Do what a reader of the README does."""
        if step.path is None:
            for line in filter(str.strip, step.text.splitlines()):
                say(f"   $ {line}")
                self.run(line)
            return
        say(f"   {step.action} {step.path}")
        if ".." in PurePosixPath(step.path).parts or step.path.startswith("/"):
            raise Failure(f"README.md: {step.path} is outside the project")
        target = self.project / step.path
        if step.action == "append" and not target.exists():
            raise Failure(f"README.md: appends to {step.path}, which does not exist")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a" if step.action == "append" else "w") as file:
            file.write(f"\n{step.text}" if step.action == "append" else step.text)

    def session(self) -> str:
        """Make a superuser and return the key of a session that is signed in as it."""
        self.run(
            f"python manage.py createsuperuser --noinput --username {NAME} --email a@b.example"
        )
        code = (
            "from django.test import Client; from django.contrib.auth import get_user_model; "
            f"c = Client(); c.force_login(get_user_model().objects.get(username='{NAME}')); "
            "print('session=' + c.cookies['sessionid'].value)"
        )
        return (
            self.run(f"python manage.py shell -c {shlex.quote(code)}").split("session=")[1].strip()
        )

    @contextlib.contextmanager
    def served(self, port: int) -> Iterator[None]:
        """Run Daphne until the block ends; only this process is ended."""
        log = self.project.parent / "daphne.log"
        command = ["daphne", "-b", "127.0.0.1", "-p", str(port), "mysite.asgi:application"]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [str(self.bin / command[0]), *command[1:]],
                cwd=self.project,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for_port(port, server)
            yield
        except Exception as error:
            raise Failure(f"{error}\nDaphne said:\n{log.read_text()}") from error
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


async def follow(site: Site, port: int, session: str, step: Step) -> None:
    """Follow the topic as a signed-in browser does, publish, and see the event."""
    from websockets.asyncio.client import connect

    topic, event, data = published(step.text)
    cookie = {"Cookie": f"sessionid={session}"}
    url, origin = f"ws://127.0.0.1:{port}/realtime/ws", f"http://127.0.0.1:{port}"
    async with asyncio.timeout(EVENT_SECONDS):
        async with connect(url, origin=origin, additional_headers=cookie) as client:
            await client.send(json.dumps({"type": "subscribe", "id": 1, "topic": topic}))
            await frame(client, "subscribed")
            await asyncio.to_thread(site.apply, step)
            got = await frame(client, "event")
    if (got["topic"], got["event"], got["data"]) != (topic, event, data):
        raise Failure(f"published {topic} {event} {data}, but the client got {got}")
    say(f"   the client got {json.dumps(got)}")


async def frame(client, kind: str) -> dict:
    """Return the next frame of a kind; an error frame ends the check."""
    while True:
        got = json.loads(await client.recv())
        if got["type"] == kind:
            return got
        if got["type"] in {"error", "closing", "unsubscribed"}:
            raise Failure(f"waited for {kind}, but the server said {got}")


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Failure(f"Daphne ended with code {server.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise Failure(f"Daphne did not listen within {START_SECONDS} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command: list[str], folder: Path, environ: dict[str, str] | None = None) -> str:
    """Return what the command printed.

    Raises:
        Failure: it failed; its whole output is in the text.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"{done.stdout}{done.stderr}\nfailed: {shlex.join(command)}")
    return done.stdout


def main() -> None:
    todo = steps((ROOT / "README.md").read_text())
    with tempfile.TemporaryDirectory(prefix="realtime-wheel-") as name:
        folder = Path(name)
        say("   building the sdist and the wheel")
        wheel = build(folder / "dist")
        check_content(wheel)
        say(f"   installing {wheel.name} into an empty environment")
        site = Site(folder)
        site.make(wheel)
        for step in todo[:-1]:
            site.apply(step)
        site.run("python manage.py check")
        session, port = site.session(), free_port()
        with site.served(port):
            asyncio.run(follow(site, port, session, todo[-1]))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
