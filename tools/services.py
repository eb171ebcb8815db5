"""Get what the tests need beside Python packages: PostgreSQL comes as one, Chromium does not."""

import os
import shutil
import subprocess

from tools.environment import say

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_SECONDS = 900  # a slow mirror and a hundred megabytes


def provide_chromium() -> None:
    """Install Debian's Chromium if there is none, apt-get is there and we may; else say so."""
    if any(map(shutil.which, CHROMIUM_NAMES)):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say("No Chromium on PATH: the browser tests will skip (Debian: apt install chromium).")
        return
    say("Installing Chromium with apt-get ...")
    if error := _apt_get("update") or _apt_get("install", "-y", "chromium"):
        say(f"{error}\nChromium could not be installed: the browser tests cannot run.")


def _apt_get(*arguments: str) -> str | None:
    """Return None, or the end of what apt-get said when it failed."""
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get took longer than {APT_SECONDS} seconds."
    return "\n".join(done.stdout.splitlines()[-5:]) if done.returncode else None
