"""Make customers users. The old sample orders are deleted; load_demo creates new ones."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def delete_orders(apps, schema_editor):
    apps.get_model("desk", "Order").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("desk", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(delete_orders, migrations.RunPython.noop),
        migrations.RemoveField("order", "customer"),
        migrations.AddField(
            "order",
            "customer",
            models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="orders",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            "order",
            "asked",
            models.BooleanField(default=False, verbose_name="customer asked"),
        ),
    ]
