"""The tables."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="LayerInbox",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("expires", models.FloatField()),
            ],
            options={
                "verbose_name": "layer inbox",
                "verbose_name_plural": "layer inboxes",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("name",), name="realtime_layerinbox_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="LayerMember",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("group", models.CharField(max_length=100)),
                ("channel", models.CharField(max_length=100)),
                ("inbox", models.CharField(max_length=100)),
                ("expires", models.FloatField()),
            ],
            options={
                "verbose_name": "layer member",
                "verbose_name_plural": "layer members",
                "default_permissions": (),
                "indexes": [models.Index(fields=["expires"], name="realtime_layermember_expires")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("group", "channel"), name="realtime_layermember_group"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="LayerMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("inbox", models.CharField(max_length=100)),
                ("payload", models.BinaryField()),
                ("expires", models.FloatField()),
            ],
            options={
                "verbose_name": "layer message",
                "verbose_name_plural": "layer messages",
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["inbox", "id"], name="realtime_layermessage_inbox"),
                    models.Index(fields=["expires"], name="realtime_layermessage_expires"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Log",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200, verbose_name="topic")),
                ("epoch", models.CharField(max_length=32, verbose_name="epoch")),
                ("seq", models.BigIntegerField(default=0, verbose_name="number of the last event")),
                ("tag", models.BigIntegerField(default=0, verbose_name="tag of the last event")),
                ("time", models.FloatField(default=0.0, verbose_name="time of the last event")),
                (
                    "floor_seq",
                    models.BigIntegerField(
                        default=0, verbose_name="number of the last trimmed event"
                    ),
                ),
                (
                    "floor_tag",
                    models.BigIntegerField(default=0, verbose_name="tag of the last trimmed event"),
                ),
                (
                    "floor_time",
                    models.FloatField(default=0.0, verbose_name="time of the last trimmed event"),
                ),
            ],
            options={
                "verbose_name": "topic",
                "verbose_name_plural": "topics",
                "default_permissions": ("view", "delete"),
                "constraints": [
                    models.UniqueConstraint(fields=("name",), name="realtime_log_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.CharField(max_length=64)),
                ("topic", models.CharField(max_length=200, verbose_name="topic")),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                ("json", models.TextField(verbose_name="data")),
                ("origin", models.CharField(max_length=64, null=True, verbose_name="origin")),
                ("created", models.FloatField(verbose_name="created")),
                ("leased_until", models.FloatField(null=True)),
            ],
            options={
                "verbose_name": "waiting event",
                "verbose_name_plural": "waiting events",
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["topic", "id"], name="realtime_outbox_topic"),
                    models.Index(fields=["created"], name="realtime_outbox_created"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("uid",), name="realtime_outbox_uid")
                ],
            },
        ),
        migrations.CreateModel(
            name="LogEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField(verbose_name="number")),
                ("tag", models.BigIntegerField(verbose_name="tag")),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                ("json", models.TextField(verbose_name="data")),
                ("origin", models.CharField(max_length=64, null=True, verbose_name="origin")),
                ("time", models.FloatField(verbose_name="time")),
                (
                    "log",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="events",
                        to="realtime.log",
                        verbose_name="topic",
                    ),
                ),
            ],
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "permissions": [("publish_event", "Can publish events")],
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(fields=("log", "seq"), name="realtime_logevent_log_seq")
                ],
            },
        ),
        migrations.CreateModel(
            name="SeenEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.CharField(max_length=64)),
                ("time", models.FloatField()),
                (
                    "log",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="realtime.log",
                    ),
                ),
            ],
            options={
                "verbose_name": "seen event",
                "verbose_name_plural": "seen events",
                "default_permissions": (),
                "indexes": [models.Index(fields=["time"], name="realtime_seenevent_time")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("log", "uid"), name="realtime_seenevent_log_uid"
                    )
                ],
            },
        ),
    ]
