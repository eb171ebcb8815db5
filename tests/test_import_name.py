"""Another distribution with a package `realtime`, installed before or after this one.

The folders stand for environments: an installation writes its files over those of the other, and
records them, as pip does.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import realtime

LIBRARIES = sysconfig.get_path("purelib")  # with -S, without the editable installation there
PACKAGE = Path(realtime.__file__).parent
THEIRS = {
    "realtime/__init__.py": "from realtime.exceptions import NotConnected\nclass Channel: ...\n",
    "realtime/exceptions.py": "class NotConnected(Exception): ...\n",
}
INFO = "realtime-2.4.0.dist-info"
REMEDY = "pip install --force-reinstall --no-deps django-channels-realtime."
UNINSTALL = "pip uninstall realtime, then "

# Tell the error of a statement, in a process with a minimal project.
SCRIPT = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["realtime", "django.contrib.contenttypes"])
try:
    {statement}
except Exception as error:
    print(type(error).__name__, error)
else:
    print("no error")
"""


def install_ours(folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / "realtime", dirs_exist_ok=True)


def install_theirs(folder: Path) -> None:
    for name, text in THEIRS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    info = folder / INFO
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: realtime\nVersion: 2.4.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in THEIRS))


def uninstall_theirs(folder: Path) -> None:
    for name in THEIRS:
        (folder / name).unlink()
    shutil.rmtree(folder / INFO)


def outcome(folder: Path, statement: str) -> str:
    """Return the type and text of the error that a statement raises, or "no error"."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT.format(statement=statement)],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": f"{folder}{os.pathsep}{LIBRARIES}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


STARTS = ["django.setup()", "import realtime.client"]


@pytest.mark.parametrize("statement", STARTS)
def test_theirs_over_ours_is_named_when_django_or_the_python_client_starts(
    tmp_path: Path, statement: str
) -> None:
    install_ours(tmp_path)
    assert outcome(tmp_path, statement) == "no error"
    install_theirs(tmp_path)
    text = outcome(tmp_path, statement)
    assert text.startswith("ImportError Files of django-channels-realtime were overwritten")
    assert ": realtime 2.4.0. " in text
    assert text.endswith(UNINSTALL + REMEDY)


@pytest.mark.parametrize("statement", STARTS)
def test_files_that_their_removal_removed_are_named_too(tmp_path: Path, statement: str) -> None:
    install_ours(tmp_path)
    install_theirs(tmp_path)
    uninstall_theirs(tmp_path)
    text = outcome(tmp_path, statement)
    assert text.startswith("ImportError Files of django-channels-realtime were overwritten or rem")
    assert "a distribution that is no longer installed" in text
    assert text.endswith("Here: " + REMEDY)
    install_ours(tmp_path)
    assert outcome(tmp_path, statement) == "no error"


def test_ours_over_theirs_is_named_where_a_name_of_theirs_is_imported(tmp_path: Path) -> None:
    install_theirs(tmp_path)
    assert outcome(tmp_path, "from realtime import Channel") == "no error"
    install_ours(tmp_path)
    text = outcome(tmp_path, "from realtime import Channel")
    assert text.startswith("ImportError django-channels-realtime has no 'Channel'.")
    assert ": realtime 2.4.0. " in text
    assert text.endswith(UNINSTALL + REMEDY)
    assert outcome(tmp_path, "django.setup(); from realtime import publish") == "no error"


def test_ours_over_theirs_is_reported_by_the_system_check(tmp_path: Path) -> None:
    install_theirs(tmp_path)
    install_ours(tmp_path)
    check = "django.setup(); from realtime.checks import check_import_name as check"
    text = outcome(tmp_path, f"{check}; print(check())")
    assert "realtime.E005" in text
    assert "realtime 2.4.0 is installed next to django-channels-realtime" in text
    assert UNINSTALL + REMEDY in text
    uninstall_theirs(tmp_path)
    install_ours(tmp_path)
    assert outcome(tmp_path, f"{check}; print(check())") == "[]\nno error"


def test_an_unknown_name_is_an_attribute_error_if_no_other_package_is_installed(
    tmp_path: Path,
) -> None:
    install_ours(tmp_path)
    text = outcome(tmp_path, "import realtime; realtime.Channel")
    assert text == "AttributeError module 'realtime' has no attribute 'Channel'"
