"""``manage.py realtime``: publish, listen, trim and new-epoch from a terminal or a script."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from realtime import conf, log, retention
from realtime.exceptions import InvalidData, InvalidName, RealtimeError
from realtime.management.arguments import (
    WRONG_CALL,
    HelpFormatter,
    add_common,
    positive,
    read_data,
    read_since,
    read_topic,
    sentence,
    whole,
)
from realtime.management.console import Console, Listener, printable
from realtime.management.remote import RemoteListener, connect_to, read_token
from realtime.protocol.encoders import event_frame
from realtime.protocol.events import Cursor
from realtime.protocol.names import is_internal
from realtime.publishing import publish
from realtime.stores import get_store
from realtime.topics import find

__all__ = ["Command"]

INTERRUPTED = 130  # the exit code that shells report for Ctrl-C

EXIT_CODES = "Exit codes: 0 success, 1 failure (such as a store that is down), 2 wrong usage."

EXAMPLES = f"""\
examples:
  manage.py realtime publish orders.42 shipped '{{"eta": "2026-11-24"}}'
  manage.py realtime listen orders.42 everyone
  manage.py realtime trim
  manage.py realtime new-epoch orders.42

manage.py realtime VERB --help describes one verb. {EXIT_CODES}
"""

PUBLISH = """\
Publishes an event to all clients that follow a topic, as publish() does in a view.

It works without a running server process; clients of every server receive the event.
"""
PUBLISH_EXAMPLES = f"""\
examples:
  manage.py realtime publish orders.42 shipped '{{"eta": "2026-11-24"}}'
  manage.py realtime publish orders.42 packed                   no data, which is null
  manage.py realtime publish news.site headline '"Rain"'        text keeps its quotes
  jq -c .order report.json | manage.py realtime publish orders.42 changed -
  manage.py realtime publish orders.42 typing --ephemeral       not stored, not replayed

{EXIT_CODES}
"""

LISTEN = """\
Prints the events of topics as they arrive, until Ctrl-C.

It reads the log itself and needs no running server process.
It does not check permissions: a user who can run this command can read the database anyway.

With --url it follows topics of a site that runs elsewhere, as any client does; the topics need not
be registered here. The token is read from --token-file, again whenever the site refuses it, or else
from the environment variable REALTIME_TOKEN.
"""
LISTEN_EXAMPLES = f"""\
examples:
  manage.py realtime listen orders.42 everyone
  manage.py realtime listen orders.42 --last 20
  manage.py realtime listen orders.42 --since="$CURSOR"         where an earlier run stopped
  manage.py realtime listen orders.42 --since=@$(date -d yesterday +%s)
  manage.py realtime listen orders.42 --url https://shop.example/realtime/ --token-file token.txt
  manage.py realtime listen orders.42 --json | jq 'select(.type == "event").data'

With --json each line is a frame as clients receive it: first "subscribed" for each topic, then
"event" and "reset"; each has the cursor to resume from.
Without --json each event is a line: time, topic, #number, event, data.
A reset means that events are missing which the log no longer keeps.

{EXIT_CODES}
130: interrupted before --count events arrived.
"""

TRIM = """\
Removes the events that exceed the limits of their topics (max_age, max_events).

Publishing trims its own topic's log, and the server processes trim what is too old about once an
hour. Run this once a day only where no server process runs for an hour: on a site that serves only
WSGI, or whose processes live shorter. It looks at every log, so it applies changed limits at once.
It also forgets logs that are empty and idle for 30 days (FORGET_AFTER).
"""
TRIM_EXAMPLES = f"""\
examples:
  manage.py realtime trim                      every log
  manage.py realtime trim orders.42 orders.43

{EXIT_CODES}
"""

NEW_EPOCH = """\
Starts a new epoch of a topic's log: its events stay, their cursors change.

Every client that follows the topic is reset once, within seconds: it fetches its state again and
goes on from there. Run this after changing the log outside the project, for example by restoring a
backup; without it, servers notice such a change with the next event or sooner.
"""
NEW_EPOCH_EXAMPLES = f"""\
examples:
  manage.py realtime new-epoch orders.42

{EXIT_CODES}
"""


class Command(BaseCommand):
    """The command; each verb is a method of the same name."""

    help = "Publishes and prints events, and maintains the logs of topics."
    # System checks slow the command down, and wrong settings end it with an error anyway.
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=HelpFormatter, epilog=EXAMPLES, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")

        def add(verb: str, text: str, examples: str) -> ArgumentParser:
            return verbs.add_parser(
                verb,
                help=text.partition("\n")[0],
                description=text,
                epilog=examples,
                formatter_class=HelpFormatter,
            )

        publish = add("publish", PUBLISH, PUBLISH_EXAMPLES)
        publish.add_argument("topic", help="the topic's name, such as orders.42")
        publish.add_argument("event", help="what happened, such as shipped")
        publish.add_argument("data", nargs="?", metavar="JSON", help="its data; - reads stdin")
        publish.add_argument(
            "--using",
            choices=tuple(connections),
            help="the database whose open transaction the event waits for, when this command is "
            "called from code",
        )
        publish.add_argument(
            "--ephemeral", action="store_true", help="only broadcast it; do not store it in the log"
        )
        add_common(publish, "print the event as clients receive it")

        listen = add("listen", LISTEN, LISTEN_EXAMPLES)
        listen.add_argument("topics", nargs="+", metavar="TOPIC")
        begin = listen.add_mutually_exclusive_group()
        begin.add_argument("--last", type=whole, metavar="N", help="start with the newest N events")
        begin.add_argument(
            "--since",
            type=read_since,
            metavar="CURSOR",
            help="start after this cursor, or at @seconds since 1970",
        )
        listen.add_argument("--url", help="follow topics of the site that serves this URL")
        listen.add_argument("--token-file", metavar="FILE", help="the token for --url")
        listen.add_argument("--count", type=positive, metavar="N", help="stop after N events")
        add_common(listen, "print frames as clients receive them, one per line")

        trim = add("trim", TRIM, TRIM_EXAMPLES)
        trim.add_argument("topics", nargs="*", metavar="TOPIC", help="default: every topic")
        add_common(trim, 'print {"removed": {topic: events}, "unregistered": [topics]}')

        new_epoch = add("new-epoch", NEW_EPOCH, NEW_EPOCH_EXAMPLES)
        new_epoch.add_argument("topics", nargs="+", metavar="TOPIC")
        add_common(new_epoch, "print each topic and its new cursor, one per line")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = options["verb"].replace("-", "_")
        try:
            if options.get("url") is None:
                _refuse_unshared_store()
            getattr(self, verb)(options)
        except (InvalidName, InvalidData) as error:
            raise CommandError(sentence(error), returncode=WRONG_CALL) from error
        except (RealtimeError, ImproperlyConfigured) as error:
            raise CommandError(sentence(error)) from error

    def print(self, text: str) -> None:
        self.stdout.write(printable(text, getattr(self.stdout, "encoding", None)))

    def publish(self, options: dict[str, Any]) -> None:
        topic = read_topic(options["topic"])
        data = read_data(options["data"])
        event = publish(
            topic,
            options["event"],
            data,
            using=options["using"],
            ephemeral=options["ephemeral"],
        )
        if options["as_json"]:
            self.print("null" if event is None else event_frame(event))
        elif event is None:
            self.print(f"{topic}: {options['event']} waits for the transaction's commit")
        elif event.seq is None:
            self.print(f"{topic}: {event.name} was broadcast; it is not in the log")
        else:
            self.print(f"{topic}: {event.name} is #{event.seq}")

    def listen(self, options: dict[str, Any]) -> None:
        names = list(dict.fromkeys(options["topics"]))  # a repeated topic is followed once
        since = options["since"]
        if isinstance(since, Cursor) and len(names) > 1:
            raise CommandError(
                "A cursor belongs to one topic: listen to that one alone, or give --since a time.",
                returncode=WRONG_CALL,
            )
        output = {"as_json": options["as_json"], "count": options["count"]}
        listener: Console
        if options["url"] is not None:
            client = connect_to(options["url"], read_token(options["token_file"]))
            listener = remote = RemoteListener(self.stdout, self.stderr, **output)
            start = f"@{since:f}" if isinstance(since, float) else since
            remote.run(client, names, start, options["last"])
        elif options["token_file"] is not None:
            raise CommandError("--token-file needs --url.", returncode=WRONG_CALL)
        else:
            listener = local = Listener(self.stdout, self.stderr, **output)
            local.run([read_topic(name) for name in names], since, options["last"])
        if listener.interrupted and listener.missing:
            sys.exit(INTERRUPTED)

    def trim(self, options: dict[str, Any]) -> None:
        store = get_store()
        for name in options["topics"]:
            read_topic(name)
        trimmer = retention.Trimmer(store)
        removed: dict[str, int] = {}
        unregistered = []
        logs = 0
        for name in options["topics"] or store.topics():
            if is_internal(name):
                trimmer.trim(name, retention.internal_retention())
                continue
            topic = find(name)
            if topic is None:
                unregistered.append(name)
                continue
            logs += 1
            if count := trimmer.trim(name, retention.retention_of(topic)):
                removed[name] = count
                if not options["as_json"]:
                    self.print(f"{name}: {_events(count)} removed")
        if options["as_json"]:
            self.print(json.dumps({"removed": removed, "unregistered": unregistered}))
            return
        for name in unregistered:
            self.print(
                f"{name}: no pattern matches it any more, so it has no limits and was not trimmed"
            )
        total = _events(sum(removed.values()))
        self.print(f"{total} removed from {len(removed)} of {logs} logs")

    def new_epoch(self, options: dict[str, Any]) -> None:
        # Look up all topics before changing the first one.
        for topic in [read_topic(name) for name in options["topics"]]:
            cursor = log.new_epoch(topic)
            if options["as_json"]:
                self.print(json.dumps({"topic": str(topic), "cursor": str(cursor)}))
            else:
                self.print(
                    f"{topic}: a new epoch begins at #{cursor.seq}; its followers are reset once, "
                    "within seconds"
                )


def _refuse_unshared_store() -> None:
    store = get_store()
    if not store.shared:
        raise CommandError(
            f"The store {type(store).__name__} is not shared: its logs are inside each process, so "
            "this command cannot reach those of the servers. "
            f'Use {{"BACKEND": "{conf.DEFAULT_STORE}"}} in REALTIME["STORE"].'
        )


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
