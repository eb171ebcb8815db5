"""Every link in the documentation resolves, and every example is quoted from tested code."""

import re
import textwrap
from pathlib import Path

import pytest

from tools.environment import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# Blocks that other tests run: those below a comment.
MARKED = re.compile(r"^<!-- [^\n]* -->\n```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
QUOTED = {  # pages, and the code that their other blocks are quoted from
    "README.md": ROOT / "tests/docs/sample",
    "docs/channel-layer.md": ROOT / "tests/layers/sample",
    "docs/howto.md": ROOT / "tests/docs/sample",
    "docs/testing.md": ROOT / "tests/testing",
}


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path) -> None:
    broken = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def sources(folder: Path) -> list[str]:
    """Return the text of each file of a sample."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.read_text() for path in files if path.suffix != ".pyc"]


def is_quoted(block: str, text: str) -> bool:
    """Return True if a text contains the lines of a block in a row, at any indentation."""
    expected = textwrap.dedent(block).splitlines()
    lines = text.splitlines()
    return any(
        textwrap.dedent("\n".join(lines[start : start + len(expected)])).splitlines() == expected
        for start in range(len(lines) - len(expected) + 1)
    )


@pytest.mark.parametrize("name", QUOTED)
def test_every_example_is_quoted_from_tested_code(name: str) -> None:
    texts = sources(QUOTED[name])
    # Commands and diagrams are not quotes either.
    found = FENCE.findall(MARKED.sub("", (ROOT / name).read_text()))
    blocks = [block for language, block in found if language not in ("", "console")]
    assert blocks
    untested = [block for block in blocks if not any(is_quoted(block, text) for text in texts)]
    assert untested == []


def test_a_block_that_differs_from_the_code_is_no_quote() -> None:
    text = "def one():\n    two()\n    three()\n"
    assert is_quoted("two()\nthree()\n", text)
    assert is_quoted("    two()\n", text)
    assert not is_quoted("two()\nfour()\n", text)
    assert not is_quoted("def one():\n    three()\n", text)
