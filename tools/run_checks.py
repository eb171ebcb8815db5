"""`make check`: run all checks (format, lint, types, JavaScript, wheel), even if one fails."""

import subprocess
import sys

from tools.environment import ROOT, ensure, say
from tools.services import provide_services

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "javascript": ["tools.javascript", "check"],
    "wheel": ["tools.check_wheel"],
}


def main() -> int:
    python = ensure(groups=["check"])
    provide_services()  # the wheel check opens the documents' pages in Chromium
    failed = []
    for name, command in CHECKS.items():
        say(f"== {name}: {' '.join(command)}")
        done = subprocess.run([str(python), "-m", *command], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(name)
    say(f"make check: {', '.join(failed)} failed" if failed else "make check: all good")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
