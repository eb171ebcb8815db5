"""`make test`: set up the environment and run the whole suite on one interpreter."""

import os
import subprocess
import sys

from tools.environment import ROOT, ensure
from tools.services import provide_services


def parallel() -> list[str]:
    """Return pytest's arguments for one worker per core, four at most."""
    workers = min(os.cpu_count() or 1, 4)
    return ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []


def main() -> int:
    python = ensure(groups=["test"], optional=["services"])
    provide_services(python)
    command = [str(python), "-m", "pytest", *parallel(), *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
