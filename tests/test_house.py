"""Rules for the source tree: import order, pure packages, size of files and functions, no sleeps.

::

    realtime/
        import_name         the clash with other packages named `realtime`
        exceptions          the errors, which everything else can raise
        protocol/           names, events, cursors, frames, commands: no Django, no I/O
        client/             the Python client, on top of protocol/ alone
        conf, threads, tenants, outage, repeated_errors, on_commit
        fair_slots, user_code   run the project's code
        topics/             the topic classes that a project defines, and their registry
        models
        stores/             where logs live: memory, database/, redis/
        request_time
        layers/             the channel layer on a database
        broadcast, retention, outbox, publishing, log, nodes, presence
        writers/            write frames to sockets: directly with Daphne, or with ASGI
        hub/                one per process: topics, subscribers, connections
        auth/
        consumers/          WebSocket, SSE, long polling, polling
        routing, asgi
        testing/            tools for the tests of a project
        views, urls, admin/, checks, management/, templatetags/, apps

``tests/`` has the same folders.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "realtime"

# A file imports only from entries above its own. Within a folder, any import is allowed.
ORDER = [
    "import_name",
    "exceptions",
    "protocol",
    "client",
    "conf",
    "threads",
    "tenants",
    "outage",
    "repeated_errors",
    "fair_slots",
    "user_code",
    "on_commit",
    "topics",
    "models",
    "stores",
    "request_time",
    "layers",
    "broadcast",
    "retention",
    "outbox",
    "publishing",
    "log",
    "nodes",
    "presence",
    "writers",
    "hub",
    "auth",
    "consumers",
    "routing",
    "asgi",
    "testing",
    "views",
    "urls",
    "admin",
    "checks",
    "management",
    "templatetags",
    "apps",
    "__init__",
]

UNORDERED = {"migrations"}  # they import only Django
TYPES_ONLY = {("exceptions", "protocol")}  # imports that are allowed under TYPE_CHECKING
# These must work without Django: the Python client is used in programs that do not have it.
PURE = {"import_name", "exceptions", "protocol", "client"}
FRAMEWORKS = {"asgiref", "autobahn", "channels", "channels_redis", "daphne", "django", "twisted"}
FILE_LINES = 700
FUNCTION_LINES = 50  # without the docstring
REASON = re.compile(r"#\s*long:\s*\S")

SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "support" not in path.parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package_of(path: Path) -> str:
    """Return the folder or module directly below ``realtime/`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of every import, including those inside functions."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def package_imported(name: str) -> str | None:
    """Return the folder or module that a dotted name belongs to; None if it is not ours."""
    parts = name.split(".")
    if parts[0] != "realtime":
        return None
    if len(parts) > 1 and ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()):
        return parts[1]
    return "__init__"


def type_checking_lines(tree: ast.AST) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.body:
                lines.update(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    return lines


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


def test_every_module_is_in_the_import_order() -> None:
    missing = {package_of(path) for path in SOURCES} - set(ORDER) - UNORDERED
    assert not missing, f"add these to ORDER: {sorted(missing)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_imports_only_from_entries_above_it(path: Path) -> None:
    own = package_of(path)
    if own in UNORDERED or own not in ORDER:
        return
    tree = ast.parse(path.read_text())
    for_types_only = type_checking_lines(tree)
    wrong = []
    for line, name in modules_imported(tree, path):
        other = package_imported(name)
        if other is None or other == own or other in UNORDERED:
            continue
        if line in for_types_only and (own, other) in TYPES_ONLY:
            continue
        if other not in ORDER or ORDER.index(other) > ORDER.index(own):
            wrong.append(f"{relative(path)}:{line} imports {name}, which is below {own} in ORDER")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if package_of(path) in PURE], ids=relative
)
def test_a_pure_package_imports_no_framework(path: Path) -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for line, name in modules_imported(ast.parse(path.read_text()), path)
        if name.split(".")[0] in FRAMEWORKS
    ]
    assert not wrong, "\n".join(wrong) + f"\n{', '.join(sorted(PURE))} must work without Django"


def test_imports_are_found_at_any_depth() -> None:
    code = "import twisted.web\ndef f():\n    from django.db import models\nfrom . import names"
    found = list(modules_imported(ast.parse(code), PACKAGE / "protocol" / "events.py"))
    assert (1, "twisted.web") in found
    assert (3, "django.db.models") in found
    assert (4, "realtime.protocol.names") in found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_models_are_reached_through_the_app_registry(path: Path) -> None:
    if package_of(path) == "models":
        return
    tree = ast.parse(path.read_text())
    for_types_only = type_checking_lines(tree)
    wrong = [
        f"{relative(path)}:{line} imports {name}: use apps.get_model"
        for line, name in modules_imported(tree, path)
        if package_imported(name) == "models" and line not in for_types_only
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_long_file_or_function_gives_a_reason(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    wrong = []
    if len(lines) > FILE_LINES and not REASON.search("\n".join(lines[:40])):
        wrong.append(f"{relative(path)} has {len(lines)} lines")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            length = (node.end_lineno or node.lineno) - start + 1 - docstring_lines(node)
            near = "\n".join(lines[max(0, start - 3) : node.body[0].lineno + 1])
            if length > FUNCTION_LINES and not REASON.search(near):
                wrong.append(f"{relative(path)}:{start} {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong) + "\nshorten it, or give a reason: # long: ..."


def test_tests_do_not_sleep() -> None:
    wrong = []
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}:
                argument = node.args[0]
                if not (isinstance(argument, ast.Constant) and argument.value == 0):
                    wrong.append(f"{relative(path)}:{node.lineno} {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong) + "\nwait for a condition with tests/support/waiting.py"
