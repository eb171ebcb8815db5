"""Run the benchmarks: `python -m benchmarks [name …]`, all of them by default."""

import subprocess
import sys

BENCHMARKS = ("latency", "publishing", "layer", "browser", "capacity")


def main() -> int:
    chosen = sys.argv[1:] or BENCHMARKS
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        print(
            f"there is no benchmark {unknown[0]!r}, only {', '.join(BENCHMARKS)}", file=sys.stderr
        )
        return 2
    for name in chosen:
        # A process of its own each: they configure Django differently.
        finished = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if finished.returncode:
            return finished.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
