"""docs/deploy.md agrees with deploy/."""

import re

from realtime.threads import (
    ACTION_THREADS,
    IDENTITY_THREADS,
    PERMISSION_THREADS,
    RELAY_THREADS,
    STORE_THREADS,
)
from tests.deploy.support.files import DEPLOY, daphne_options
from tests.docs.test_documents import is_quoted
from tools import serving
from tools.environment import ROOT

TEXT = (ROOT / "docs" / "deploy.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Return the first and second cells of the rows of a section's table."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1] for row in cells}


def test_the_command_for_one_process_has_the_options_of_the_service() -> None:
    (command,) = re.findall(r"^daphne (.*)$", TEXT, re.MULTILINE)
    words = command.split()
    assert words[2:-1] == daphne_options()


def test_the_demo_has_the_options_of_the_service_too() -> None:
    command = serving.daphne("127.0.0.1", 8000, "project.asgi:application")
    endpoint, options = command[3], command[4:-1]
    assert endpoint == "tcp:port=8000:interface=127.0.0.1:backlog=4096"
    service = [word for word in daphne_options() if word not in ("--verbosity", "0")]
    assert options == service  # but the demo logs its requests


def test_every_option_of_the_service_is_documented() -> None:
    documented = rows("Daphne's options")
    options = daphne_options()
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert f"`{name} {value}`" in documented


def test_every_documented_setting_is_in_the_configuration() -> None:
    config = (DEPLOY / "nginx.conf").read_text() + (DEPLOY / "upstream.conf").read_text()
    documented = rows("nginx")
    assert documented
    for cell in documented:
        for name in re.findall(r"`([^`]+)`", cell):
            words = r"\s+".join(re.escape(word) for word in name.split())
            assert re.search(rf"(?<![\w#]){words}(?=[\s;])", config), name


def test_every_file_is_mentioned() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert files
    unmentioned = {path.name for path in files if path.name not in TEXT}
    # These belong to nginx.conf and the Dockerfile, and are found with them.
    assert unmentioned == {"upstream-compose.conf", "Dockerfile.dockerignore"}


def test_the_documented_redis_settings_are_in_the_settings_file() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    code = re.sub(r"^ *#.*\n", "", (DEPLOY / "settings.py").read_text(), flags=re.MULTILINE)
    assert is_quoted(block, code)


def test_every_recipe_for_nginx_removes_the_root_path_of_the_client() -> None:
    pages = [DEPLOY / "nginx.conf", *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    recipes = {page.name for page in pages if "proxy_pass http" in page.read_text()}
    assert {"nginx.conf", "subpaths.md"} <= recipes
    for page in pages:
        if page.name in recipes:
            assert 'proxy_set_header Daphne-Root-Path "";' in page.read_text(), page


def test_every_recipe_with_a_layer_in_redis_sets_its_prefix() -> None:
    """Two sites that follow one recipe would otherwise share the groups of their own consumers."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), DEPLOY / "settings.py"]
    recipes = [
        (page.name, config)
        for page in pages
        for config in re.findall(
            r'"channels_redis\.\w+\.\w+",(.*?\n *\})', page.read_text(), re.DOTALL
        )
    ]
    assert len(recipes) >= 5
    for page, config in recipes:
        assert '"prefix": ' in config, f"{page}: {config}"


def test_the_documented_number_of_connections_is_right() -> None:
    users = sum(pool.count for pool in (IDENTITY_THREADS, PERMISSION_THREADS, ACTION_THREADS))
    counts = [STORE_THREADS.count, RELAY_THREADS.count, users]
    layer = 2  # its thread's connection, and one that only listens: see tests/layers
    assert f"up to {sum(counts) + layer} connections" in TEXT
    assert "({} for the logs, {} for the outbox, {} for".format(*counts) in TEXT
    assert f"{layer} for the wake-ups)" in TEXT


def test_the_example_is_calculated_from_the_table() -> None:
    number = r"\| ([\d.]+) [^|]*"
    found = re.search(rf"\| WebSocket {number * 4}\|", TEXT)
    assert found
    memory, connect, idle, delivery = map(float, found.groups())
    publishing = 51 * 4.2 / 1e3
    delivering = 10_050 * delivery / 1e6
    waiting = 0.011 + idle * 10 / 100
    alone = publishing + delivering + waiting
    shared = (publishing + delivering + idle * 10 / 100) / 4 + 0.011
    for claim in (
        f"51 x 4.2 ms = {publishing:.0%} of a core",
        f" x {delivery:.0f} µs = {delivering:.0%} of a core",
        f" x {idle / 1000:g} % = {waiting:.0%} of a core",
        f" x {memory:.0f} KB = {10 * memory:.0f} MB",
        f"Together that is {alone:.0%} of a core",
        f"busy for {delivery / 100:.1f} s",
        f"busy for {10 * connect:.1f} s",
        f"each is at {shared:.0%}",
        f"everybody after {delivery / 400:.2f} s",
        f"a restart of one is {2.5 * connect:.1f} s",
    ):
        expected = re.sub(r"(\d)%", r"\1 %", claim).replace(" x ", " \N{MULTIPLICATION SIGN} ")
        assert expected in TEXT, expected
