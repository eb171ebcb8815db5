"""The figures of the benchmarks: printed as they arrive, saved as JSON, and written into a table.

A benchmark has targets, and reports whether it met them.
A target is a ratio between figures of one run, because absolute figures depend on the machine;
the few absolute targets are labelled as such.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, exit_on_sigterm, raise_file_limit

BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"
ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "performance.md"
HEADLINES = (
    "4,000 ",
    "10,000 ",
    "1,000 ",
    "publish",
)  # the rows for README.md; the page has all rows


@dataclass(frozen=True)
class Figure:
    """A cell of the table.

    Attributes:
        what: its row.
        peer: its column.
        shown: its text.
        values: the numbers in the text, such as seconds, bytes and counts; empty if it has none.
    """

    what: str
    peer: str
    shown: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A limit that a measurement should not exceed.

    Attributes:
        text: what is compared with what.
        measured, limit: in the same unit.
        unit: the unit of both; ``x`` for a ratio.
    """

    text: str
    measured: float
    limit: float
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        """Whether the measurement is within the limit."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        word = "PASS" if self.is_met else "FAIL"
        return f"{word}  {self.text}: {self.measured:.3g} {self.unit} (at most {self.limit:.3g})"


class Report:
    """The figures and targets of one benchmark.

    Args:
        name: of the benchmark.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.figures: list[Figure] = []
        self.targets: list[Target] = []

    def figure(self, what: str, peer: str, shown: str, **values: float) -> None:
        """Add a figure and print it."""
        self.figures.append(Figure(what, peer, shown, values))
        print(f"{what:<42} {peer:<30} {shown}", flush=True)

    def target(self, text: str, measured: float, limit: float, unit: str = "x") -> None:
        """Add a target and print whether it was met."""
        self.targets.append(Target(text, measured, limit, unit))
        print(self.targets[-1], flush=True)

    def save(self, file: Path | None) -> None:
        """Write everything to a file, if one is given."""
        if file is not None:
            figures, targets = (
                [asdict(each) for each in items] for items in (self.figures, self.targets)
            )
            found = {"name": self.name, "figures": figures, "targets": targets}
            file.write_text(json.dumps(found, indent=1))


def options(name: str, **defaults: str | int) -> argparse.Namespace:
    """Read the command line of a benchmark and prepare the machine.

    Args:
        name: of the benchmark.
        defaults: its options in addition to ``--json`` and ``--quick``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="run a part of the benchmark")
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", default=default, type=type(default))
    chosen = parser.parse_args()
    raise_file_limit()
    exit_on_sigterm()
    print(describe(), flush=True)
    return chosen


def numbers(text: str) -> list[int]:
    """Return the numbers of a comma-separated list."""
    return [int(part) for part in text.split(",") if part]


def table(reports: Iterable[Mapping[str, Any]], command: str, words: Sequence[str] = ("",)) -> str:
    """Return a Markdown table of the figures, and the command that made it.

    Args:
        reports: the reports of the benchmarks.
        command: the command line that ran them.
        words: a row must contain one of these; by default all rows do.
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
    """Write a table into a document, between its two markers.

    Raises:
        SystemExit: a marker is missing.
    """
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{file.name} needs {BEGIN} and {END}: the table is written between them")
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
