"""Counters of the whole site, and when each log is trimmed next (at first: at once)."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0003_node_writes"),
    ]

    operations = [
        migrations.CreateModel(
            name="Quota",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("used", models.BigIntegerField(default=0)),
                ("until", models.FloatField(default=0.0)),
            ],
            options={
                "verbose_name": "quota",
                "verbose_name_plural": "quotas",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("name",), name="realtime_quota_name")
                ],
            },
        ),
        migrations.AddField(
            model_name="log",
            name="trim_at",
            field=models.FloatField(db_default=0.0, default=0.0, null=True),
        ),
        migrations.AddIndex(
            model_name="log",
            index=models.Index(fields=["trim_at"], name="realtime_log_trim_at"),
        ),
    ]
