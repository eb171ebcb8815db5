"""`make js` and a part of `make check`: bundle the page's client, or check, type and test it.

Needs Node; users of the package and most who develop it do not, since the bundle is committed.
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
OLDEST_NODE = 18  # esbuild's
GET_NODE = f"Node {OLDEST_NODE} or newer, with npm"
SCRIPTS = {"build": ["build"], "check": ["fresh", "types", "test"]}  # of js/package.json


def main(arguments: list[str]) -> int:
    (wanted,) = arguments
    if not _has_node():
        return _without_node(wanted)
    _install()
    failed = [name for name in SCRIPTS[wanted] if _npm("run", "--silent", name).returncode]
    if failed:
        say(f"js: {', '.join(failed)} failed")
    return 1 if failed else 0


def node_version(text: str) -> int:
    """Return the major version of what `node --version` printed; 0 if it is none."""
    match = re.match(r"v(\d+)\.", text)
    return int(match[1]) if match else 0


def _has_node() -> bool:
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    try:
        done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return node_version(done.stdout) >= OLDEST_NODE


def _without_node(wanted: str) -> int:
    """Say so; only what was asked for by name, and CI, fail."""
    if wanted == "check" and os.environ.get("CI", "").lower() not in {"1", "true"}:
        say(f"Not checked here: needs {GET_NODE}.")
        return 0
    say(f"Needs {GET_NODE}.")
    return 1


def _install() -> None:
    """Install what the lock file names, unless that was done."""
    stamp = FOLDER / "node_modules" / "installed.txt"
    files = (FOLDER / "package.json", FOLDER / "package-lock.json")
    now = hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
    if stamp.is_file() and stamp.read_text() == now:
        return
    say(f"Installing into {stamp.parent.relative_to(ROOT)} ...")
    done = _npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    if done.returncode:
        sys.exit("npm ci failed; its own words are above.")
    stamp.write_text(now)


def _npm(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["npm", *arguments], cwd=FOLDER, check=False)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
