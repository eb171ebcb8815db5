"""Other distributions that install a package ``realtime``, such as Supabase's client.

Two distributions with one import name overwrite files of each other.
So this module imports nothing from the package: any of its files may belong to the other one.
"""

from __future__ import annotations

import sys
from importlib import metadata

__all__ = ["check_files", "find_others", "remedy"]

OURS = "django-channels-realtime"


def find_others() -> list[str]:
    """Return the name and version of each other distribution with a package ``realtime``."""
    found = {
        f"{other.name} {other.version}"
        for other in metadata.distributions()
        if other.name != OURS
        and "\nrealtime/__init__.py," in "\n" + (other.read_text("RECORD") or "")
    }
    return sorted(found)


def remedy() -> str:
    """Return what to do if another distribution has overwritten files, or its own are overwritten.

    The other one is named if it is still installed.
    """
    names = [other.partition(" ")[0] for other in find_others()]
    uninstall = f"pip uninstall {' '.join(names)}, then " if names else ""
    return (
        "Keep the two in separate environments. Here: "
        f"{uninstall}pip install --force-reinstall --no-deps {OURS}."
    )


def check_files() -> None:
    """Raise if another distribution has overwritten this package, or removed it with its own files.

    Raises:
        ImportError: the text names the other distribution and the remedy.
    """
    if "_MODULES" in vars(sys.modules["realtime"]):
        return
    others = " and ".join(find_others()) or "a distribution that is no longer installed"
    raise ImportError(
        f"Files of {OURS} were overwritten or removed by another distribution with the import name "
        f"'realtime': {others}. {remedy()}",
        name="realtime",
    )
