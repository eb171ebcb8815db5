"""Build the wheel, install it outside the checkout, and use it by following the documents.

Each document's blocks go into a new Django project, which two windows of a Chromium check.
Then Daphne serves the README's project, and a WebSocket client follows the topic that the README
publishes to.
Needs the packages `build`, `playwright` and `websockets` of the group `check`.
"""

import asyncio
import json
import shlex
import sys
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

from tools.environment import ROOT, say
from tools.following import PASSWORD, USERNAME, Failure, Site, Step, run, steps
from tools.windows import two_windows

DOCUMENTS = ("README.md", "docs/tutorial.md")
NEEDED = {  # in the wheel, even if git does not list them
    "realtime/py.typed",
    "realtime/static/realtime/realtime.js",
    # Django's ManifestStaticFilesStorage fails without the source map that the bundle names.
    "realtime/static/realtime/realtime.js.map",
}
EVENT_SECONDS = 30  # from the command's start to the event: the command starts Django first


def published(text: str) -> tuple[str, str, object]:
    """Return topic, event and data of the block's `realtime publish` command."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[2:4] == ["realtime", "publish"]:
            topic, event, *data = (word for word in words[4:] if not word.startswith("--"))
            return topic, event, json.loads(data[0]) if data else None
    raise Failure("the publish block lacks the command 'manage.py realtime publish'")


def publish_step(todo: list[Step]) -> Step:
    """Return the one publish block of a document."""
    found = [step for step in todo if step.action == "publish"]
    if len(found) != 1:
        raise Failure("the document needs exactly one integration block 'publish'")
    return found[0]


def build(folder: Path) -> Path:
    """Build the sdist and, from it, the wheel."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Check that the wheel contains exactly the files of the package."""
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
        raise Failure(f"in the wheel, but not in git: {sorted(more)}")
    if absent := NEEDED - inside:
        raise Failure(f"not in the wheel: {sorted(absent)}")
    if licence != "BSD-3-Clause":
        raise Failure(f"License-Expression is {licence!r} instead of 'BSD-3-Clause'")


def install(wheel: Path, environment: Path) -> None:
    """Install only the wheel into a new environment, and check that it is what Python imports."""
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    arguments = ["-m", "pip", "--disable-pip-version-check", "install", str(wheel)]
    run([python, *arguments], environment)
    where = run([python, "-c", "import realtime; print(realtime.__file__)"], environment)
    if environment not in Path(where).parents:
        raise Failure(f"the environment imports {where.strip()} instead of the wheel")


def session(site: Site) -> str:
    """Return the key of a session in which the document's superuser is signed in."""
    code = (
        "from django.test import Client; from django.contrib.auth import get_user_model; "
        f"c = Client(); c.force_login(get_user_model().objects.get(username='{USERNAME}')); "
        "print('session=' + c.cookies['sessionid'].value)"
    )
    return site.run(f"python manage.py shell -c {shlex.quote(code)}").split("session=")[1].strip()


async def listen(site: Site, key: str, step: Step) -> None:
    """Follow the topic as a signed-in browser does, publish, and check the received event."""
    from websockets.asyncio.client import connect

    topic, event, data = published(step.text)
    url = site.url.replace("http:", "ws:") + "/realtime/ws"
    cookie = {"Cookie": f"sessionid={key}"}
    async with asyncio.timeout(EVENT_SECONDS):
        async with connect(url, origin=site.url, additional_headers=cookie) as client:
            await client.send(json.dumps({"type": "subscribe", "id": 1, "topic": topic}))
            await frame(client, "subscribed")
            await asyncio.to_thread(site.run_lines, step)
            got = await frame(client, "event")
    if (got["topic"], got["event"], got["data"]) != (topic, event, data):
        raise Failure(f"published {topic} {event} {data}, but the client received {got}")
    say(f"   the client received {json.dumps(got)}")


async def frame(client, kind: str) -> dict:
    """Return the next frame of a type; an error frame fails the check."""
    while True:
        got = json.loads(await client.recv())
        if got["type"] == kind:
            return got
        if got["type"] in {"error", "closing", "unsubscribed"}:
            raise Failure(f"waited for {kind}, but the server sent {got}")


def follow(document: str, environment: Path, project: Path) -> Site:
    """Follow one document in a new project."""
    say(f"   following {document}")
    todo = steps((ROOT / document).read_text(), document)
    site = Site(environment, project, document)
    with two_windows(site.url, USERNAME, PASSWORD) as windows:
        site.follow(todo, windows)
    site.run("python manage.py check --fail-level WARNING")
    site.run("python manage.py makemigrations --check --dry-run")
    return site


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="realtime-wheel-") as name:
        folder = Path(name).resolve()
        say("   building the sdist and the wheel")
        wheel = build(folder / "dist")
        check_content(wheel)
        say(f"   installing {wheel.name} into an empty environment")
        environment = folder / "env"
        install(wheel, environment)
        for document in DOCUMENTS:
            site = follow(document, environment, folder / Path(document).stem.lower())
            if document == "README.md":
                serve_with_daphne(site)


def serve_with_daphne(site: Site) -> None:
    """Receive the README's event with a third-party client, under plain Daphne."""
    step = publish_step(steps((ROOT / site.name).read_text(), site.name))
    key = session(site)
    try:
        site.serve(["daphne", "mysite.asgi:application"])
        asyncio.run(listen(site, key, step))
    finally:
        site.stop()


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
