"""`make bench`: run the benchmarks in the same environment as the tests."""

import subprocess
import sys

from tools.environment import ROOT, ensure


def main() -> int:
    python = ensure(groups=["test"], optional=["services"])
    command = [str(python), "-m", "benchmarks", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
