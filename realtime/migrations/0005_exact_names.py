"""Compare names exactly on MySQL and MariaDB too, whose default collations ignore case.

Topics whose names differ only in case had one log there. Its row keeps the events, under the name
of the topic that was first; the other topics begin new logs, and their clients are reset once.
"""

from collections.abc import Iterator
from typing import Any

from django.db import migrations, router

# What is compared for equality. LogEvent.name and OutboxEntry.name are only searched and shown.
NAMES = {
    "LayerInbox": ["name"],
    "LayerMember": ["group", "channel", "inbox"],
    "LayerMessage": ["inbox"],
    "Log": ["name", "epoch"],
    "Member": ["uid", "node"],
    "NodeRow": ["name"],
    "OutboxEntry": ["uid", "topic"],
    "Quota": ["name"],
    "SeenEvent": ["uid"],
}


def make_exact(apps: Any, schema_editor: Any) -> None:
    for model, plain, exact in _fields(apps, schema_editor):
        schema_editor.alter_field(model, plain, exact)


def make_plain(apps: Any, schema_editor: Any) -> None:
    for model, plain, exact in _fields(apps, schema_editor):
        schema_editor.alter_field(model, exact, plain)


def _fields(apps: Any, schema_editor: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each model with a field as it was, and with a collation that compares exactly."""
    connection = schema_editor.connection
    if connection.vendor != "mysql":
        return
    # utf8mb4_bin ignores spaces at the end of a name; MySQL has no other that all versions know.
    collation = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_bin"
    for label, names in NAMES.items():
        model = apps.get_model("realtime", label)
        if router.allow_migrate_model(connection.alias, model):
            for name in names:
                plain = model._meta.get_field(name)
                exact = plain.clone()
                exact.set_attributes_from_name(name)
                exact.model, exact.db_collation = model, collation
                yield model, plain, exact


class Migration(migrations.Migration):
    dependencies = [("realtime", "0004_quotas_and_trim_at")]

    # Not atomic: MariaDB cannot roll back the change of a column, so Django refuses it there.
    operations = [migrations.RunPython(make_exact, make_plain, atomic=False)]
