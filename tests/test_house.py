"""Guard the order of the house: who may import whom, how long things may be, no sleeps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "realtime"

# A file imports only from files above it here; inside a folder imports are free.
ORDER = [
    "exceptions",
    "protocol",
    "client",
    "conf",
    "threads",
    "outage",
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

ANYTIME = {"migrations"}  # Django's own; they import nothing of ours
TYPES_ONLY = {("exceptions", "protocol")}  # an error keeps its facts; their types cost no import
FILE_LINES = 700
FUNCTION_LINES = 50  # without the docstring
REASON = re.compile(r"#\s*long:\s*\S")

SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "support" not in path.parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """Return the entry of ORDER that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported from `realtime`, inside functions too."""
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


def room_imported(name: str) -> str | None:
    """Return the room a dotted name lives in; None if it is not ours."""
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


def test_every_module_has_its_place() -> None:
    unknown = {room(path) for path in SOURCES} - set(ORDER) - ANYTIME
    assert not unknown, f"place these in ORDER: {sorted(unknown)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_imports_only_from_above(path: Path) -> None:
    own = room(path)
    if own in ANYTIME or own not in ORDER:
        return
    tree = ast.parse(path.read_text())
    for_types_only = type_checking_lines(tree)
    wrong = []
    for line, name in modules_imported(tree, path):
        other = room_imported(name)
        if other is None or other == own or other in ANYTIME:
            continue
        if line in for_types_only and (own, other) in TYPES_ONLY:
            continue
        if other not in ORDER or ORDER.index(other) > ORDER.index(own):
            wrong.append(f"{relative(path)}:{line} imports {name}, which stands below {own}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_models_are_reached_through_the_app_registry(path: Path) -> None:
    if room(path) == "models":
        return
    tree = ast.parse(path.read_text())
    for_types_only = type_checking_lines(tree)
    wrong = [
        f"{relative(path)}:{line} imports {name}: use apps.get_model"
        for line, name in modules_imported(tree, path)
        if room_imported(name) == "models" and line not in for_types_only
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_long_file_or_function_says_why(path: Path) -> None:
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
    assert not wrong, "\n".join(wrong) + "\nmake it shorter, or say why: # long: ..."


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
    assert not wrong, "\n".join(wrong) + "\nwait for a condition: tests/support/waiting.py"
