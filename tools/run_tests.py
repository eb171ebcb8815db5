"""`make test`: set everything up and run the whole suite on one interpreter."""

import subprocess
import sys

from tools.environment import ROOT, ensure
from tools.services import provide_chromium


def main() -> int:
    python = ensure(groups=["test"], optional=["services"])
    provide_chromium()
    command = [str(python), "-m", "pytest", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
