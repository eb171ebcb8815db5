"""A database with one schema per tenant is refused, and one realtime per schema works."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from tests.support.databases import database_config
from tests.support.server import DEADLINE, Server, connect
from tests.support.services import require

SCRIPT = """
import json, os, django
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=json.loads(os.environ["APPS"]),
    SHARED_APPS=json.loads(os.environ["APPS"]),
    TENANT_APPS=["django.contrib.auth"],
    TENANT_MODEL="customers.Client",
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    DATABASES={"default": json.loads(os.environ["DATABASE"])},
)
django.setup()
from realtime import checks, publish
from django.db import connection, transaction
for message in checks.check_tenants(): print(message.id, message.msg)
if hasattr(connection, "set_schema"):
    connection.set_schema("acme")
    try:
        with transaction.atomic():
            publish("everyone", "tick")
    except Exception as error:
        print(type(error).__name__, error)
"""


def output(database: dict[str, object]) -> list[str]:
    require(find_spec("django_tenants"), "django-tenants: pip install django-tenants")
    apps = ["realtime", "django.contrib.contenttypes", "django.contrib.auth"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"APPS": json.dumps(apps), "DATABASE": json.dumps(database)},
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_database_with_a_schema_per_tenant_is_refused(postgres_database: str) -> None:
    config = database_config(postgres_database)
    assert output(config) == []
    config["ENGINE"] = "django_tenants.postgresql_backend"
    reported, raised = output(config)
    reason = "he database 'default' has one schema per tenant (django_tenants.postgresql_backend)"
    assert reported.startswith(f"realtime.E007 T{reason}")
    assert raised.startswith(f"PublishError t{reason}")
    assert "docs/tenants.md" in raised


async def test_two_servers_on_two_schemas_of_a_database_share_nothing(
    postgres_database: str, tmp_path: Path
) -> None:
    names = ("acme", "globex")
    (tmp_path / "plain").mkdir()
    Server(tmp_path / "plain", postgres_database).run(
        "from django.db import connection\n"
        f"for name in {names}: connection.cursor().execute(f'CREATE SCHEMA {{name}}')"
    )
    with ExitStack() as stack:
        servers = []
        for name in names:
            (tmp_path / name).mkdir()
            url = f"{postgres_database}&options=-c%20search_path%3D{name}"
            servers.append(stack.enter_context(Server(tmp_path / name, url)))
        keys = [server.sign_in() for server in servers]
        async with (
            connect(servers[0], additional_headers=keys[0]) as acme,
            connect(servers[1], additional_headers=keys[1]) as globex,
        ):
            for client in (acme, globex):
                assert "user.1" in client.welcome["topics"]
                await client.subscribe("user.1")
            for server, name in zip(servers, names, strict=True):
                server.run(
                    "from django.db import transaction\n"
                    "from realtime import publish\n"
                    f"with transaction.atomic(): publish('user.1', 'tick', {name!r})\n"
                    f"publish('user.1', 'tick', {name!r})"
                )
            for client, name in ((acme, "acme"), (globex, "globex")):
                assert [event["data"] for event in await client.events(2)] == [name, name]
