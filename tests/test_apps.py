"""The app's configuration, and what it does when Django is ready."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.core.checks.registry import registry as checks_registry
from django.core.management import get_commands, load_command_class
from django.db import models

from realtime import topics
from realtime.apps import RealtimeConfig


@pytest.fixture
def _registrations_end_with_the_test() -> Iterator[None]:
    with topics.isolated():
        yield


def test_the_app_is_found_by_its_package_name() -> None:
    config = apps.get_app_config("realtime")
    assert isinstance(config, RealtimeConfig)
    assert isinstance(config.get_model("LogEvent")._meta.pk, models.BigAutoField)


@pytest.mark.usefixtures("_registrations_end_with_the_test")
def test_topics_are_discovered_when_django_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, cls in topics.patterns():
        if cls.__module__ == "tests.testapp.topics":
            topics.unregister(cls)
    monkeypatch.delitem(sys.modules, "tests.testapp.topics")
    assert topics.find("orders.42") is None
    apps.get_app_config("realtime").ready()
    assert str(topics.resolve("orders.42")) == "orders.42"


def test_the_checks_are_registered() -> None:
    assert "realtime" in checks_registry.tags_available()


def test_runserver_is_daphne_from_the_first_app() -> None:
    assert get_commands()["runserver"] == "realtime"
    command = load_command_class("realtime", "runserver")
    parser = command.create_parser("manage.py", "runserver")
    assert parser.parse_args(["--noasgi", "8001"]).use_asgi is False
    assert command.server_cls.__module__ == "daphne.server"  # type: ignore[attr-defined]


def test_django_starts_without_importing_the_server() -> None:
    """A WSGI server or a task worker needs neither Twisted nor Daphne in memory."""
    script = (
        "import sys, django; django.setup(); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'daphne'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
