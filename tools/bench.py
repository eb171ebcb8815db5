"""`make bench`: run the benchmarks in the same environment as the tests."""

import subprocess
import sys

from tools.environment import ROOT, ensure


def main() -> int:
    python = ensure(groups=["test"], optional=["services"])
    command = [str(python), "-m", "benchmarks", *sys.argv[1:]]
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the benchmarks received it too, and stop the servers that they started


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
