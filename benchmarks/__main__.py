"""Run the benchmarks, all of them by default, one after the other.

    python -m benchmarks [name …] [--quick] [--json FILE] [--readme]

``--quick`` runs a part of the comparisons with the peers, in a few minutes.
``--json`` writes all figures to a file; ``--readme`` writes their table into docs/performance.md,
and its most important rows into README.md.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import exit_on_sigterm
from benchmarks.report import HEADLINES, PAGE, README, Target, table, write_table

COMPARING = (
    "fanout",
    "burst",
    "connecting",
    "resuming",
    "holding",
    "stalled",
    "slowcalls",
    "publishing",
)
OTHERS = ("ledger", "latency", "layer", "browser", "capacity")
SOAK = ("floods",)  # only if it is named: it tests the limits and measures nothing else
QUICK = ("fanout", "burst", "connecting", "resuming")


def run(name: str, quick: bool, folder: Path) -> dict[str, Any] | None:
    """Run a benchmark in its own process, because each configures Django differently.

    Returns:
        Its report, or None if it writes none.

    Raises:
        SystemExit: the benchmark failed.
    """
    print(f"== {name}", flush=True)
    command, file = [sys.executable, "-m", f"benchmarks.{name}"], folder / f"{name}.json"
    if name in COMPARING:
        command += ["--json", str(file), *(["--quick"] if quick else [])]
    process = subprocess.Popen(command)
    try:
        process.wait()
    except BaseException:
        # The benchmark stops the processes that it started. Ctrl-C has sent it a SIGINT already.
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        sys.exit(process.returncode)
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return found


def summary(reports: list[dict[str, Any]]) -> str:
    """Return the targets of the benchmarks, and how many were met."""
    targets = [Target(**target) for report in reports for target in report["targets"]]
    met = sum(target.is_met for target in targets)
    return "\n".join([*map(str, targets), f"{met} of {len(targets)} targets were met"])


def main() -> None:
    names = (*COMPARING, *OTHERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    known = (*names, *SOAK)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="run a part of each benchmark")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="write the table into docs/performance.md and README.md",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r}, only {', '.join(known)}")
    exit_on_sigterm()
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
    text, targets = table(reports, command), summary(reports)
    print(f"\n{text}\n\n{targets}")
    if options.readme:
        write_table(PAGE, f"{text}\n\nTargets:\n\n```\n{targets}\n```")
        write_table(README, table(reports, command, HEADLINES))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
