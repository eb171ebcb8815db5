"""Run the benchmarks, all of them by default, one after the other.

    python -m benchmarks [name …] [--quick] [--json FILE] [--readme]

``--quick`` runs less of those that compare this package with its peers, in a few minutes.
``--json`` keeps all figures in a file; ``--readme`` puts their table into docs/performance.md, and
the rows that say most into README.md.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import end_well
from benchmarks.report import HEADLINES, PAGE, README, Aim, table, write_table

COMPARING = ("fanout", "burst", "connecting", "resuming", "holding", "stalled", "publishing")
OTHERS = ("ledger", "latency", "layer", "browser", "capacity")
QUICK = ("fanout", "burst", "connecting", "resuming")


def run(name: str, quick: bool, folder: Path) -> dict[str, Any] | None:
    """Run one in a process of its own, since they configure Django differently.

    Returns:
        What it found, None if it keeps nothing.

    Raises:
        SystemExit: it failed.
    """
    print(f"== {name}", flush=True)
    command, file = [sys.executable, "-m", f"benchmarks.{name}"], folder / f"{name}.json"
    if name in COMPARING:
        command += ["--json", str(file), *(["--quick"] if quick else [])]
    process = subprocess.Popen(command)
    try:
        process.wait()
    except BaseException:
        # It ends what it started; at Ctrl-C it was told already.
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        sys.exit(process.returncode)
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return found


def summary(reports: list[dict[str, Any]]) -> str:
    """Return what the benchmarks were to show."""
    aims = [Aim(**aim) for report in reports for aim in report["aims"]]
    met = sum(aim.is_met for aim in aims)
    return "\n".join([*map(str, aims), f"{met} of {len(aims)} were shown"])


def main() -> None:
    names = (*COMPARING, *OTHERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--json", type=Path, help="the file that gets all figures")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"there is no benchmark {unknown[0]!r}, only {', '.join(names)}")
    end_well()
    with tempfile.TemporaryDirectory() as folder:
        chosen = options.names or (QUICK if options.quick else names)
        found = [run(name, options.quick, Path(folder)) for name in chosen]
    reports = [report for report in found if report is not None]
    if not reports:
        return
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1))
    arguments = [*options.names, *(["--quick"] if options.quick else [])]
    command = " ".join(["python -m benchmarks", *arguments])
    text, aims = table(reports, command), summary(reports)
    print(f"\n{text}\n\n{aims}")
    if options.readme:
        write_table(PAGE, f"{text}\n\nWhat it was to show:\n\n```\n{aims}\n```")
        write_table(README, table(reports, command, HEADLINES))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
