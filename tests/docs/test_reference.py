"""docs/reference.md is what the docstrings say, and lists everything that is public."""

import dataclasses
import re
from importlib import import_module

import pytest

from realtime import conf
from tools import reference
from tools.environment import ROOT

PAGE = reference.PAGE.read_text()
HEADINGS = set(re.findall(r"^#### `(\w+)`$", PAGE, re.MULTILINE))
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_page_is_what_the_docstrings_say() -> None:
    assert reference.render() == PAGE, "run `make reference`"


@pytest.mark.parametrize(
    "module", [name for name, (_, names) in reference.PYTHON.items() if not names]
)
def test_every_exported_name_has_an_entry_with_a_docstring(module: str) -> None:
    loaded = import_module(module)
    for name in loaded.__all__:
        assert name in HEADINGS
        assert getattr(loaded, name).__doc__, f"{name} has no docstring"


def test_every_name_that_the_documentation_imports_has_an_entry() -> None:
    imported = {
        (module, name.strip())
        for page in PAGES
        for module, names in re.findall(
            r"^ *from (realtime[\w.]*) import ([\w, ]+)$", page.read_text(), re.MULTILINE
        )
        for name in names.split(",")
    }
    assert ("realtime", "publish") in imported
    modules = {
        (module, name) for module, name in imported if f"{module}.{name}" in reference.PYTHON
    }
    missing = {name for _, name in imported - modules} - HEADINGS
    assert missing == set()


def test_every_setting_has_a_row() -> None:
    for cls in (conf.Config, conf.Limits):
        _, sections = reference.split_docstring(cls.__doc__ or "")
        described = re.findall(r"^(\w+):", dict(sections)["Attributes"], re.MULTILINE)
        assert {field.name for field in dataclasses.fields(cls)} == set(described)


def test_every_system_check_of_the_code_is_listed() -> None:
    code = [path.read_text() for path in (ROOT / "realtime").rglob("*.py")]
    used = {id_ for text in code for id_ in re.findall(r'id="(realtime\.[EW]\d+)"', text)}
    used |= {id_ for text in code for id_ in re.findall(r'"(realtime\.[EW]\d+)" if ', text)}
    listed = set(re.findall(r"^\| `(realtime\.[EW]\d+)` \|", PAGE, re.MULTILINE))
    assert used
    assert used <= listed
    assert listed - used <= {"realtime.E001"}  # its id is the else of a condition


def test_the_java_script_types_are_listed_whole() -> None:
    types = (ROOT / "realtime/static/realtime/realtime.d.ts").read_text()
    assert types.strip() in PAGE
