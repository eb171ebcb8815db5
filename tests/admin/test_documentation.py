"""The examples in docs/admin.md work, and projects without the admin do not load realtime.admin."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission

from realtime.topics import Topic, isolated, register

DOCUMENT = Path(__file__).parents[2] / "docs/admin.md"
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", DOCUMENT.read_text(), re.S)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Run the examples with stub modules for their imports, and yield the names they define."""
    defined: dict[str, Any] = {}
    site = admin.AdminSite(name="staff")
    with isolated():

        @register("shop-orders.<int:pk>")
        class OrderTopic(Topic):
            pk: int

        for name, values in {
            "shop": {},
            "shop.models": {"Order": Permission},
            "shop.topics": {"OrderTopic": OrderTopic},
            "mysite": {},
            "mysite.sites": {"staff_site": site},
        }.items():
            module = ModuleType(name)
            vars(module).update(values)
            monkeypatch.setitem(sys.modules, name, module)
        try:
            for path, text in BLOCKS:
                exec(compile(text, path, "exec"), defined)
            yield defined
        finally:
            if admin.site.is_registered(Permission):
                admin.site.unregister(Permission)


def test_the_examples_work(names: dict[str, Any]) -> None:
    assert [path for path, _ in BLOCKS] == ["shop/topics.py", "shop/admin.py", "mysite/admin.py"]
    topic = names["AnnouncementTopic"]
    form = topic.admin_forms["announced"]({"title": "Hi"})
    assert form.is_valid()
    [order_admin] = [
        each for each in admin.site._registry.values() if type(each).__name__ == "OrderAdmin"
    ]
    assert order_admin.check() == []
    assert list(order_admin.actions) == ["publish_selected"]
    topic, name, data = order_admin.get_publication(SimpleNamespace(pk=7, state="open"))
    assert (str(topic), name, data) == ("shop-orders.7", "changed", {"state": "open"})
    assert order_admin.get_publication(SimpleNamespace(pk=7, state="draft")) is None
    assert len(names["staff_site"]._registry) == 1


WITHOUT_ADMIN = """
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["realtime", "django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("check", fail_level="ERROR", verbosity=0)
assert not {"realtime.admin", "django.contrib.admin"} & set(sys.modules)
"""


def test_a_project_without_the_admin_does_not_load_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ADMIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
