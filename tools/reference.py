"""`make reference`: write docs/reference.md from the docstrings.

The page lists the settings, the public names of Python with their docstrings, the template tags,
the management command, the system checks and the JavaScript API. `tests/docs/test_reference.py`
fails if the page differs from the code.
"""

import argparse
import dataclasses
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from tools.environment import ROOT, ensure, say

PAGE = ROOT / "docs" / "reference.md"

#: The public modules, each with its public names; None stands for all of `__all__`.
PYTHON: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "realtime": ("Publishing and topics", None),
    "realtime.log": ("Logs", None),
    "realtime.presence": ("Presence", ("Member", "members", "amembers")),
    "realtime.asgi": ("ASGI", ("with_realtime",)),
    "realtime.auth": ("Authentication", None),
    "realtime.auth.tokens": ("Tokens", ("read_token", "Grant")),
    "realtime.admin": ("Admin", None),
    "realtime.testing": ("Tests", None),
    "realtime.client": ("Python client", None),
    "realtime.exceptions": ("Exceptions", None),
    "realtime.stores.database": ("Database store", ("DatabaseStore",)),
    "realtime.stores.redis": ("Redis store", ("RedisStore",)),
    "realtime.stores.memory": ("Memory store", ("MemoryStore",)),
    "realtime.layers": ("Channel layer", None),
}

#: Classes that users create themselves or whose methods they call.
WITH_METHODS = {"Topic", "Client", "Subscription", "RealtimeClient", "CapturedEvents", "Event"}
WITH_METHODS |= {"Cursor", "Member"}

INTRODUCTION = """\
# Reference

Settings, Python API, template tags, management command, system checks and JavaScript API.
`make reference` writes this page from the docstrings.

- [Settings](#settings)
- [Python](#python): {python}
- [Template tags](#template-tags)
- [Management command](#management-command)
- [System checks](#system-checks)
- [JavaScript](#javascript)
"""


def main() -> None:
    if os.environ.get("REALTIME_REFERENCE") != "inside":
        # Run again with the packages of the tests, which the client and the tests' tools need.
        python = str(ensure(groups=["test"], optional=["services"]))
        environ = {**os.environ, "REALTIME_REFERENCE": "inside"}
        command = [python, "-m", "tools.reference"]
        sys.exit(subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode)
    from django.conf import settings

    apps = ["realtime", "django.contrib.admin", "django.contrib.auth"]
    apps += ["django.contrib.contenttypes", "django.contrib.messages"]
    settings.configure(INSTALLED_APPS=apps, SECRET_KEY="reference", USE_TZ=True)
    import_module("django").setup()
    PAGE.write_text(render())
    say(f"{PAGE.relative_to(ROOT)} is written")


def render() -> str:
    """Return the text of the page; Django must be set up."""
    titles = [title for title, _ in PYTHON.values()]
    python = ", ".join(f"[{title}](#{anchor(title)})" for title in titles)
    parts = [INTRODUCTION.format(python=python), *_settings(), "## Python\n"]
    for module, (title, names) in PYTHON.items():
        parts += _module(module, title, names)
    parts += [*_tags(), *_command(), *_checks(), *_javascript()]
    return "\n".join(parts)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# Docstrings

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Guarantees|Source):$", re.MULTILINE)
ENTRY = re.compile(r"^(?:[*\w`, ]+|Any other error of [^:]*):(?: |$)")


def prose(text: str) -> str:
    """Return a docstring's text as Markdown: one sentence a line, single backticks."""
    text = text.replace("``", "`")
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith(("- ", "* ")):
            items = re.split(r"\n(?=[-*] )", paragraph)
            out.append("\n".join(" ".join(item.split()) for item in items))
        else:
            joined = " ".join(paragraph.split())
            out.append(re.sub(r"(?<=[a-z`)\"'0-9]\.) (?=[A-Z`])", "\n", joined))
    return "\n\n".join(out)


def split_docstring(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a docstring's prose without literal blocks, and its sections."""
    text = inspect.cleandoc(text)
    pieces = SECTION.split(text)
    before, rest = pieces[0], pieces[1:]
    sections = []
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        lines = body.strip("\n").splitlines()
        inside = [line for line in lines if not line or line.startswith(" ")]
        after = lines[len(inside) :]
        sections.append((name, inspect.cleandoc("\n" + "\n".join(inside))))
        if after:
            before += "\n\n" + "\n".join(after)
    return re.sub(r"::\n\n(?: +[^\n]*\n|\n)+", ":\n", before), sections


def entries(body: str) -> Iterator[str]:
    """Yield the entries of a section as Markdown list items."""
    current: list[str] = []
    for line in body.splitlines():
        if line and not line.startswith(" ") and current and ENTRY.match(line):
            yield _item(current)
            current = []
        current.append(line)
    if current:
        yield _item(current)


def _item(lines: list[str]) -> str:
    text = " ".join(" ".join(lines).split()).replace("``", "`")
    if found := ENTRY.match(text):
        names, rest = text[: found.end()].rstrip(": "), text[found.end() :]
        if re.fullmatch(r"[*\w, ]+", names) and not names.startswith("Any other"):
            names = ", ".join(f"`{name.strip()}`" for name in names.split(","))
        text = f"{names}: {rest}"
    return f"- {text}"


def described(text: str | None, *, without: tuple[str, ...] = ()) -> list[str]:
    """Return a docstring as Markdown paragraphs."""
    before, sections = split_docstring(text or "")
    out = [prose(before), ""]
    for name, body in sections:
        if name in without:
            continue
        listed = list(entries(body)) if name in ("Args", "Attributes", "Raises") else [prose(body)]
        listed = [item for item in listed if not item.startswith("- `context`:")]
        if listed:
            out += [f"{name}:", "", *listed, ""]
    return out


def signature(name: str, function: Any, *, skip: tuple[str, ...] = ("self",)) -> str:
    """Return `name(parameters)`, without the types of results."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return f"{name}(…)"
    kept = [
        parameter.replace(annotation=_annotation(parameter.annotation))
        for parameter in found.parameters.values()
        if parameter.name not in skip and not parameter.name.startswith("_")
    ]
    text = str(found.replace(parameters=kept, return_annotation=inspect.Signature.empty))
    return name + re.sub(r"(?<=: )'([^']*)'(?= = |[,)])", r"\1", text)


def _annotation(value: Any) -> Any:
    return value if isinstance(value, str) else inspect.Parameter.empty


# Settings

ESCAPED_PIPE = r"\|"  # in a table
KEYS = {
    "store_backend": 'STORE["BACKEND"]',
    "store_location": 'STORE["LOCATION"]',
    "store_options": 'STORE["OPTIONS"]',
}


def _settings() -> list[str]:
    from realtime import conf

    out = ["## Settings\n", "All keys of `settings.REALTIME` are optional.\n"]
    for cls, root in ((conf.Config, "REALTIME"), (conf.Limits, 'REALTIME["LIMITS"]')):
        _, sections = split_docstring(cls.__doc__ or "")
        texts = dict(sections)["Attributes"]
        values = cls()
        out += [f"### `{root}`\n", "| key | default | meaning |", "|---|---|---|"]
        for item in entries(texts):
            name, text = re.fullmatch(r"- `(\w+)`: (.*)", item).groups()  # type: ignore[union-attr]
            key = name if cls is conf.Limits else KEYS.get(name, name.upper())
            default = getattr(values, name)
            shown = "below" if dataclasses.is_dataclass(default) else f"`{default!r}`"
            out.append(f"| `{key}` | {shown} | {text.replace('|', ESCAPED_PIPE)} |")
        out.append("")
    return out


# Python


def _module(module: str, title: str, names: tuple[str, ...] | None) -> list[str]:
    loaded = import_module(module)
    out = [f"### {title}\n", f"Import these from `{module}`.\n"]
    for name in names or loaded.__all__:
        out += _entry(module, name, getattr(loaded, name))
    return out


def _entry(module: str, name: str, value: Any) -> list[str]:
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    if value.__module__.startswith("realtime.exceptions") and module != "realtime.exceptions":
        return [f"#### `{name}`\n", "See [exceptions](#exceptions).\n"]
    if is_error:
        bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
        return [f"#### `{name}`\n", f"A kind of {bases}.", *described(value.__doc__)]
    if module != value.__module__ and module == "realtime.client" and name in ("Cursor", "Event"):
        return [f"#### `{name}`\n", "See [publishing and topics](#publishing-and-topics).\n"]
    if module == "realtime.client" and name == "Member":
        return [f"#### `{name}`\n", "See [presence](#presence).\n"]
    out = [f"#### `{name}`\n"]
    if callable(value):
        shown = _defaults(value) if name == "Topic" else signature(name, value)
        out += ["```python", shown, "```", ""]
    out += described(value.__doc__)
    if name in WITH_METHODS:
        out += _methods(value)
    return out


def _defaults(cls: type) -> str:
    """Return the class attributes with their values."""
    names = [name for name in inspect.get_annotations(cls) if not name.startswith("_")]
    lines = [f"    {name} = {getattr(cls, name)!r}" for name in names]
    return "\n".join([f"class {cls.__name__}:", *lines])


def _methods(cls: type) -> list[str]:
    out = []
    for name, raw in vars(cls).items():
        value = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            shown = f".{name}"
        elif inspect.isfunction(value):
            shown = "." + signature(name, value, skip=("self", "cls"))
        else:
            continue
        out += [f"**`{shown}`**", "", *described(value.__doc__)]
    return out


# Template tags


def _tags() -> list[str]:
    from realtime.templatetags import realtime as tags

    out = ["## Template tags\n", "After `{% load realtime %}`.\n"]
    for name in sorted(tags.register.tags):
        function = getattr(tags, name)
        shown = signature(name, function, skip=("context",))
        out += [f"### `{{% {name} %}}`\n", "```python", shown, "```", ""]
        out += described(function.__doc__)
    return out


# The management command


def _command() -> list[str]:
    from realtime.management.commands.realtime import Command

    parser = Command().create_parser("manage.py", "realtime")
    (verbs,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    out = ["## Management command\n", "`python manage.py realtime VERB`\n"]
    for name, verb in verbs.choices.items():
        actions = [a for a in verb._actions if a.help is not argparse.SUPPRESS and a.dest != "help"]
        out += [f"### `realtime {name}`\n", prose(verb.description or ""), ""]
        out += [_argument(verb, action) for action in actions if not _is_djangos(action)]
        out.append("")
    return out


def _is_djangos(action: argparse.Action) -> bool:
    names = {"version", "verbosity", "settings", "pythonpath", "traceback", "no_color"}
    return action.dest in names | {"force_color", "skip_checks"}


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    return f"- `{name}`: {(action.help or '') % {**vars(action), 'prog': parser.prog}}"


# System checks


def _checks() -> list[str]:
    from realtime import checks

    out = [
        "## System checks\n",
        "`python manage.py check` reports:\n",
        "| id | problem |",
        "|---|---|",
    ]
    for line in (checks.__doc__ or "").splitlines():
        if found := re.match(r"(realtime\.[EW]\d+)  (.*)", line):
            out.append(f"| `{found[1]}` | {found[2].replace('``', '`')} |")
    return [*out, "", "Each message says what to do.\n"]


# JavaScript


def _javascript() -> list[str]:
    types = (ROOT / "realtime" / "static" / "realtime" / "realtime.d.ts").read_text().strip()
    out = ["## JavaScript\n", "[The JavaScript client](javascript.md) has examples.\n"]
    return [*out, "<!-- realtime.d.ts -->", "```ts", types, "```", ""]


if __name__ == "__main__":
    main()
