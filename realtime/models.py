"""The tables of the database store, the outbox and the database channel layer.

The code gets these models through ``apps.get_model()``, so that everything else can be imported
before ``django.setup()``.

Times are seconds since 1970 by the database's clock (``stores.database.clock.DatabaseClock``). They
are floats, because they are compared and sent to clients as numbers.
Text columns that are only compared for equality have their index in ``Meta``: on PostgreSQL,
``unique=True`` or ``db_index=True`` would add a second one for ``LIKE``.
"""

# ruff: noqa: D106, RUF012 - Django's Meta classes have mutable attributes and no docstring

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = [
    "LayerInbox",
    "LayerMember",
    "LayerMessage",
    "Log",
    "LogEvent",
    "Member",
    "NodeRow",
    "OutboxEntry",
    "Quota",
    "SeenEvent",
]


class Log(models.Model):
    """The state of a topic's log: its epoch, its head and its floor.

    The row is also the topic's lock: every append, trim and new epoch locks it first. The row
    stays when all events are trimmed or deleted, until the log is forgotten.
    The row with the empty name is not a log: its epoch is the store id, the epoch of every new log,
    and its ``floor_time`` is that of every new log.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("topic"), max_length=200)
    epoch = models.CharField(_("epoch"), max_length=32)
    seq = models.BigIntegerField(_("number of the last event"), default=0)
    tag = models.BigIntegerField(_("tag of the last event"), default=0)
    time = models.FloatField(_("time of the last event"), default=0.0)
    floor_seq = models.BigIntegerField(_("number of the last trimmed event"), default=0)
    floor_tag = models.BigIntegerField(_("tag of the last trimmed event"), default=0)
    floor_time = models.FloatField(_("time of the last trimmed event"), default=0.0)
    # When to look for something to trim or to forget; null: when the next event was appended. The
    # database default is for processes of the previous version, which do not set this column.
    trim_at = models.FloatField(null=True, default=0.0, db_default=0.0)

    class Meta:
        verbose_name = _("topic")
        verbose_name_plural = _("topics")
        default_permissions = ("view", "delete")
        constraints = [models.UniqueConstraint(fields=["name"], name="realtime_log_name")]
        indexes = [models.Index(fields=["trim_at"], name="realtime_log_trim_at")]

    def __str__(self) -> str:
        return self.name


class LogEvent(models.Model):
    """An event that is kept in its topic's log.

    There is no index on the time. It never decreases in a log, so trimming reads the oldest rows
    and "since" the newest ones, both in the order of ``seq``.
    """

    id = models.BigAutoField(primary_key=True)
    # The unique constraint begins with the log, so another index would never be used.
    log = models.ForeignKey(
        Log, models.CASCADE, related_name="events", db_index=False, verbose_name=_("topic")
    )
    seq = models.BigIntegerField(_("number"))
    tag = models.BigIntegerField(_("tag"))
    name = models.CharField(_("name"), max_length=100)
    json = models.TextField(_("data"))
    origin = models.CharField(_("origin"), max_length=64, null=True)  # noqa: DJ001 - None is a value
    time = models.FloatField(_("time"))

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        default_permissions = ("view",)
        permissions = [("publish_event", _("Can publish events"))]
        constraints = [
            models.UniqueConstraint(fields=["log", "seq"], name="realtime_logevent_log_seq")
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.name}"


class SeenEvent(models.Model):
    """The id of an event that was appended within the last hour, kept to reject duplicates."""

    id = models.BigAutoField(primary_key=True)
    log = models.ForeignKey(Log, models.CASCADE, related_name="+", db_index=False)
    uid = models.CharField(max_length=64)
    time = models.FloatField()

    class Meta:
        verbose_name = _("seen event")
        verbose_name_plural = _("seen events")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["log", "uid"], name="realtime_seenevent_log_uid")
        ]
        indexes = [models.Index(fields=["time"], name="realtime_seenevent_time")]

    def __str__(self) -> str:
        return self.uid


class OutboxEntry(models.Model):
    """An event in the outbox: part of its caller's transaction, and relayed after the commit."""

    id = models.BigAutoField(primary_key=True)
    uid = models.CharField(max_length=64)
    topic = models.CharField(_("topic"), max_length=200)
    name = models.CharField(_("name"), max_length=100)
    json = models.TextField(_("data"))
    origin = models.CharField(_("origin"), max_length=64, null=True)  # noqa: DJ001 - None is a value
    created = models.FloatField(_("created"))
    leased_until = models.FloatField(null=True)

    class Meta:
        verbose_name = _("waiting event")
        verbose_name_plural = _("waiting events")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["uid"], name="realtime_outbox_uid")]
        indexes = [
            models.Index(fields=["topic", "id"], name="realtime_outbox_topic"),
            models.Index(fields=["created"], name="realtime_outbox_created"),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.name}"


class NodeRow(models.Model):
    """A server process, as it described itself at its last heartbeat."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40)
    host = models.CharField(max_length=255)
    pid = models.BigIntegerField()
    version = models.CharField(max_length=50)
    connections = models.BigIntegerField()
    topics = models.BigIntegerField()
    followers = models.TextField()
    # The database default is for processes of the previous version, which do not set this column.
    writes = models.CharField(max_length=200, default="{}", db_default="{}")
    started = models.FloatField()
    seen = models.FloatField()

    class Meta:
        verbose_name = _("server process")
        verbose_name_plural = _("server processes")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="realtime_noderow_name")]

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    """A member of a topic, as one node reports it; changed under the lock of the presence log."""

    id = models.BigAutoField(primary_key=True)
    # The unique constraint begins with the log, so another index would never be used.
    log = models.ForeignKey(Log, models.CASCADE, related_name="members", db_index=False)
    uid = models.CharField(max_length=255)
    node = models.CharField(max_length=40)
    json = models.TextField()

    class Meta:
        verbose_name = _("member")
        verbose_name_plural = _("members")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["log", "uid", "node"], name="realtime_member_log_uid")
        ]
        indexes = [models.Index(fields=["node", "log"], name="realtime_member_node")]

    def __str__(self) -> str:
        return self.uid


class Quota(models.Model):
    """A counter of the whole site, see ``Store.take()``; there is one row for each use of one."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    used = models.BigIntegerField(default=0)
    until = models.FloatField(default=0.0)

    class Meta:
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="realtime_quota_name")]

    def __str__(self) -> str:
        return self.name


class LayerInbox(models.Model):
    """A process that reads the database channel layer, and when its lease expires."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    expires = models.FloatField()

    class Meta:
        verbose_name = _("layer inbox")
        verbose_name_plural = _("layer inboxes")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="realtime_layerinbox_name")]

    def __str__(self) -> str:
        return self.name


class LayerMessage(models.Model):
    """A message of the database channel layer that has not been read yet."""

    id = models.BigAutoField(primary_key=True)
    inbox = models.CharField(max_length=100)
    payload = models.BinaryField()
    expires = models.FloatField()

    class Meta:
        verbose_name = _("layer message")
        verbose_name_plural = _("layer messages")
        default_permissions = ()
        indexes = [
            models.Index(fields=["inbox", "id"], name="realtime_layermessage_inbox"),
            models.Index(fields=["expires"], name="realtime_layermessage_expires"),
        ]

    def __str__(self) -> str:
        return f"{self.inbox} {self.pk}"


class LayerMember(models.Model):
    """A channel that is in a group of the database channel layer."""

    id = models.BigAutoField(primary_key=True)
    group = models.CharField(max_length=100)
    channel = models.CharField(max_length=100)
    inbox = models.CharField(max_length=100)
    expires = models.FloatField()

    class Meta:
        verbose_name = _("layer member")
        verbose_name_plural = _("layer members")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["group", "channel"], name="realtime_layermember_group")
        ]
        indexes = [models.Index(fields=["expires"], name="realtime_layermember_expires")]

    def __str__(self) -> str:
        return f"{self.group} {self.channel}"
