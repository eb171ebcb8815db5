"""Bundle the JavaScript client for `make js`, or check, type and test it for `make check`.

This needs Node. Users and most developers of the package do not, because the bundle is committed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.environment import ROOT, say

FOLDER = ROOT / "js"
OLDEST_NODE = 18  # esbuild needs it
GET_NODE = f"Node {OLDEST_NODE} or newer, with npm"
SCRIPTS = {"build": ["build"], "check": ["fresh", "types", "test"]}  # in js/package.json


def main(arguments: list[str]) -> int:
    (task,) = arguments
    if not _has_node():
        return _without_node(task)
    _install()
    failed = [name for name in SCRIPTS[task] if _npm("run", "--silent", name).returncode]
    if failed:
        say(f"js: {', '.join(failed)} failed")
    return 1 if failed else 0


def node_version(text: str) -> int:
    """Return the major version in the output of `node --version`; 0 if there is none."""
    match = re.match(r"v(\d+)\.", text)
    return int(match[1]) if match else 0


def _has_node() -> bool:
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    try:
        result = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return node_version(result.stdout) >= OLDEST_NODE


def _without_node(task: str) -> int:
    """Say what is missing; `check` fails only in CI, `build` always."""
    if task == "check" and os.environ.get("CI", "").lower() not in {"1", "true"}:
        say(f"JavaScript is not checked: install {GET_NODE}.")
        return 0
    say(f"Install {GET_NODE}.")
    return 1


def _install() -> None:
    """Install the packages of the lock file, unless they are installed already."""
    stamp = FOLDER / "node_modules" / "installed.txt"
    files = (FOLDER / "package.json", FOLDER / "package-lock.json")
    digest = hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    say(f"Installing into {stamp.parent.relative_to(ROOT)} ...")
    result = _npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    if result.returncode:
        sys.exit("npm ci failed; see its output above.")
    stamp.write_text(digest)


def _npm(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["npm", *arguments], cwd=FOLDER, check=False)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
