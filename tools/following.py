"""Follow a document as a reader would: its marked blocks, in order, in a new Django project.

CONTRIBUTING.md explains the markers.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.environment import say
from tools.windows import Failure, Windows

MARKER = "<!-- integration:"
STEP = re.compile(
    rf"^{MARKER} (?P<action>\w+)(?: (?P<argument>[^\n]+?))? -->"
    r"(?:\s*^```\w*\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
# Whether an action takes an argument in its marker, and a block below it.
ACTIONS = {
    "append": (True, True),
    "write": (True, True),
    "run": (False, True),
    "publish": (False, True),
    "serve": (True, False),
    "stop": (False, False),
    "open": (True, False),
    "fill": (True, False),
    "click": (True, False),
    "see": (True, False),
    "gone": (True, False),
}
IN_THE_BROWSER = {"click", "fill"}  # these change the site, and later steps rely on that
USERNAME, PASSWORD = "ada", "only for this check"
START_SECONDS = 30  # for a server to listen
COMMAND_SECONDS = 300  # for any command, even an installation; one that takes longer hangs


@dataclass(frozen=True)
class Step:
    """One marked step of a document."""

    action: str
    argument: str
    text: str


def steps(text: str, name: str) -> list[Step]:
    """Return the marked steps of a document.

    Raises:
        Failure: a marker is malformed.
    """
    found = []
    for match in STEP.finditer(text):
        action, argument, block = match.group("action", "argument", "text")
        takes = ACTIONS.get(action)
        # A marker that takes no block can precede a block that is only shown.
        if takes is None or takes[0] is not bool(argument) or (takes[1] and block is None):
            raise Failure(f"{name}: wrong marker or missing block: {match[0].splitlines()[0]}")
        found.append(Step(action, argument or "", (block or "") if takes[1] else ""))
    if len(found) != text.count(MARKER):
        raise Failure(f"{name}: an integration marker is malformed")
    return found


class Site:
    """A new Django project in its own environment, outside the checkout.

    Args:
        environment: the virtual environment with the wheel.
        project: the project's folder, which is created.
        name: the name of the followed document, for messages.
    """

    def __init__(self, environment: Path, project: Path, name: str) -> None:
        self.bin = environment / "bin"
        self.project = project
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = project.with_suffix(".log")
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")},
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SUPERUSER_USERNAME": USERNAME,
            "DJANGO_SUPERUSER_EMAIL": "ada@example.org",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }
        self.environ.pop("PYTHONPATH", None)
        self._server: subprocess.Popen[bytes] | None = None
        project.mkdir()

    def follow(self, todo: list[Step], windows: Windows | None) -> None:
        """Execute the steps of the document.

        Raises:
            Failure: a step failed; the message says which, and includes the server's log.
        """
        try:
            for step in todo:
                if windows is None and step.action in IN_THE_BROWSER:
                    say(f"   stopped before '{step.action} {step.argument}': there is no browser")
                    break
                self._apply(step, windows)
            if windows is not None:
                windows.check()
        except Exception as error:
            said = self.log.read_text()[-8000:] if self.log.exists() else ""
            where = f"\nThe server said:\n{said}" if said else ""
            raise Failure(f"{self.name}: {error}{where}") from error
        finally:
            self.stop()

    def _apply(self, step: Step, windows: Windows | None) -> None:
        doing: dict[str, Callable[[Step], None]] = {
            "append": self._write,
            "write": self._write,
            "run": self.run_lines,
            "publish": self.run_lines,
            "serve": lambda step: self.serve(shlex.split(step.argument)),
            "stop": lambda step: self.stop(),
        }
        if step.action in doing:
            if windows is not None and self._server is not None:
                windows.may_break = step.action in ("serve", "stop") or windows.may_break
            doing[step.action](step)
        elif windows is not None:
            say(f"   {step.action} {step.argument}")
            windows.do(step.action, step.argument)

    def run_lines(self, step: Step) -> None:
        """Run each line of a block as a command."""
        for line in filter(str.strip, step.text.splitlines()):
            say(f"   $ {line}")
            # createsuperuser takes its answers from the DJANGO_SUPERUSER_* variables.
            self.run(f"{line} --noinput" if " createsuperuser" in line else line)

    def run(self, line: str) -> str:
        """Run one line in the project's folder and return its output."""
        return run(["sh", "-c", line], self.project, self.environ)

    def _write(self, step: Step) -> None:
        say(f"   {step.action} {step.argument}")
        if ".." in PurePosixPath(step.argument).parts or step.argument.startswith("/"):
            raise Failure(f"{step.argument} is outside the project's folder")
        target = self.project / step.argument
        if step.action == "append" and not target.exists():
            raise Failure(f"cannot append to {step.argument}, which does not exist")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a" if step.action == "append" else "w") as file:
            file.write(f"\n{step.text}" if step.action == "append" else step.text)
        # Python would run stale bytecode if the new file has the same size and modification second.
        shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)

    def serve(self, command: list[str]) -> None:
        """Start a server on this site's port with a command, and wait until it listens."""
        if command[:3] == ["python", "manage.py", "runserver"]:
            # The reloader is a second process, which would outlive the killed one.
            command = [*command, "--noreload", f"127.0.0.1:{self.port}"]
        elif command[0] == "daphne":
            command = ["daphne", "-b", "127.0.0.1", "-p", str(self.port), *command[1:]]
        else:
            raise Failure(f"{shlex.join(command)} is neither runserver nor daphne")
        say(f"   $ {shlex.join(command)} &")
        self.stop()
        with self.log.open("ab") as output:
            self._server = subprocess.Popen(
                [str(self.bin / command[0]), *command[1:]],
                cwd=self.project,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise Failure(f"the server exited with code {self._server.returncode}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise Failure(f"the server did not listen within {START_SECONDS} s")

    def stop(self) -> None:
        """Kill the server, if one is running; no step needs a clean shutdown."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], folder: Path, environ: dict[str, str] | None = None) -> str:
    """Return the output of a command.

    Raises:
        Failure: the command failed or timed out; the message contains its whole output.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        said = b"".join(filter(None, (error.stdout, error.stderr))).decode(errors="replace")
        text = f"{said}\ntimed out after {COMMAND_SECONDS} s: {shlex.join(command)}"
        raise Failure(text) from None
    if done.returncode:
        raise Failure(f"{done.stdout}{done.stderr}\nfailed: {shlex.join(command)}")
    return done.stdout
