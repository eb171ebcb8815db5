"""What the benchmarks found: printed as it comes, kept as JSON, and made into a table.

Each benchmark says what it is asked to show, and whether it did; those aims are ratios of figures
of one run, since absolute ones depend on the machine, unless they say that they are absolute.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, end_well, raise_file_limit

BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"
ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "performance.md"
HEADLINES = ("4,000 ", "10,000 ", "1,000 ", "publish")  # rows of the README; the page has all


@dataclass(frozen=True)
class Figure:
    """A cell of the table.

    Attributes:
        what: its row.
        peer: its column.
        shown: its text.
        values: what the text is made of; seconds, bytes and counts. Empty if there are none.
    """

    what: str
    peer: str
    shown: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aim:
    """What a benchmark is to show.

    Attributes:
        text: what is compared with what.
        measured, limit: of the same unit; measured is at most the limit.
        unit: of both; ``x`` for a ratio.
    """

    text: str
    measured: float
    limit: float
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        """Whether it was shown."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        word = "PASS" if self.is_met else "FAIL"
        return f"{word}  {self.text}: {self.measured:.3g} {self.unit} (at most {self.limit:.3g})"


class Report:
    """What one benchmark found.

    Args:
        name: of the benchmark.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.figures: list[Figure] = []
        self.aims: list[Aim] = []

    def figure(self, what: str, peer: str, shown: str, **values: float) -> None:
        """Keep a figure and print it."""
        self.figures.append(Figure(what, peer, shown, values))
        print(f"{what:<42} {peer:<30} {shown}", flush=True)

    def aim(self, text: str, measured: float, limit: float, unit: str = "x") -> None:
        """Compare what was measured with what is aimed at, and print it."""
        self.aims.append(Aim(text, measured, limit, unit))
        print(self.aims[-1], flush=True)

    def save(self, file: Path | None) -> None:
        """Write everything to a file, if one is wanted."""
        if file is not None:
            figures, aims = (
                [asdict(each) for each in items] for items in (self.figures, self.aims)
            )
            found = {"name": self.name, "figures": figures, "aims": aims}
            file.write_text(json.dumps(found, indent=1))


def options(name: str, **defaults: str | int) -> argparse.Namespace:
    """Read the command line of a benchmark and prepare the machine.

    Args:
        name: of the benchmark.
        defaults: the options that it has beside ``--json`` and ``--quick``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", type=Path, help="the file that gets all figures")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", default=default, type=type(default))
    chosen = parser.parse_args()
    raise_file_limit()
    end_well()
    print(describe(), flush=True)
    return chosen


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    return [int(part) for part in text.split(",") if part]


def table(reports: Iterable[Mapping[str, Any]], command: str, words: Sequence[str] = ("",)) -> str:
    """Return a Markdown table of the figures, and the command that made it.

    Args:
        reports: what the benchmarks found.
        command: with which they ran.
        words: of which a row has one; by default all have.
    """
    figures = [
        figure
        for report in reports
        for figure in report["figures"]
        if any(word in figure["what"] for word in words)
    ]
    rows = list(dict.fromkeys(figure["what"] for figure in figures))
    peers = list(dict.fromkeys(figure["peer"] for figure in figures))
    cells = {(figure["what"], figure["peer"]): figure["shown"] for figure in figures}
    lines = [[row, *(cells.get((row, peer), "") for peer in peers)] for row in rows]
    head = f"Made by `{command}`; {describe().partition(',')[0]}, shared with other work."
    rule = "|---" * (len(peers) + 1) + "|"
    first, *rest = ["| " + " | ".join(line).strip() + " |" for line in [["", *peers], *lines]]
    return "\n".join([head, "", first, rule, *rest])


def write_table(file: Path, text: str) -> None:
    """Put a table into a document, between its two marks.

    Raises:
        SystemExit: the marks are not there.
    """
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{file.name} has no {BEGIN} and {END}, between which the table would stand")
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
