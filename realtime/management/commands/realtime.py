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

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended

EXIT_CODES = "Exit codes: 0 done, 1 could not be done (say, the store is away), 2 wrong call."

EXAMPLES = f"""\
examples:
  manage.py realtime publish orders.42 shipped '{{"eta": "2026-11-24"}}'
  manage.py realtime listen orders.42 everyone
  manage.py realtime trim
  manage.py realtime new-epoch orders.42

manage.py realtime VERB --help tells more of each. {EXIT_CODES}
"""

PUBLISH = """\
Publishes an event to everyone who follows a topic, as publish() does in a view.

The process that runs this need not be a server; clients of every server get the event.
"""
PUBLISH_EXAMPLES = f"""\
examples:
  manage.py realtime publish orders.42 shipped '{{"eta": "2026-11-24"}}'
  manage.py realtime publish orders.42 packed                   no data, which is null
  manage.py realtime publish news.site headline '"Rain"'        text keeps its quotes
  jq -c .order report.json | manage.py realtime publish orders.42 changed -
  manage.py realtime publish orders.42 typing --ephemeral       not in the log, not replayed

{EXIT_CODES}
"""

LISTEN = """\
Prints the events of topics as they come, until Ctrl-C.

It reads the log as a server process does and needs none to run.
It asks no topic for permission: who may run this may read the database anyway.

With --url it follows the topics of a site that runs elsewhere, as any client does; the topics need
not be known here. The token is read from --token-file, else from the variable REALTIME_TOKEN.
"""
LISTEN_EXAMPLES = f"""\
examples:
  manage.py realtime listen orders.42 everyone
  manage.py realtime listen orders.42 --last 20
  manage.py realtime listen orders.42 --since="$CURSOR"         where an earlier run stopped
  manage.py realtime listen orders.42 --since=@$(date -d yesterday +%s)
  manage.py realtime listen orders.42 --url https://shop.example/realtime/ --token-file token.txt
  manage.py realtime listen orders.42 --json | jq 'select(.type == "event").data'

With --json each line is a frame as clients get it: "subscribed" first, for each topic, then
"event" and "reset"; each has the cursor to go on from.
Without it each event is a line: time, topic, #number, event, data.
A reset says that events are missing which the log does not keep any more.

{EXIT_CODES}
130: interrupted before --count events came.
"""

TRIM = """\
Removes the events that are older or more than their topics keep (max_age, max_events).

Servers do it by themselves each hour, and publishers when a log grows; this is for a project
whose processes do not live that long, and after a change of those limits.
"""
TRIM_EXAMPLES = f"""\
examples:
  manage.py realtime trim                      every log
  manage.py realtime trim orders.42 orders.43

{EXIT_CODES}
"""

NEW_EPOCH = """\
Begins a new life of a topic's log: its events stay, their cursors change.

Whoever follows the topic is reset once, within seconds: the client fetches its state anew and goes
on from there. It is for an operator who changed the log behind the servers' back, such as by
restoring a backup; servers find that out themselves, with the next event or sooner.
"""
NEW_EPOCH_EXAMPLES = f"""\
examples:
  manage.py realtime new-epoch orders.42

{EXIT_CODES}
"""


class Command(BaseCommand):
    """The command; each verb is a method."""

    help = "Publishes, listens and looks after the logs of topics."
    # They are for `check` and the servers; what is wrong with the settings ends the command anyway.
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
        publish.add_argument("data", nargs="?", metavar="JSON", help="its data; - reads it")
        publish.add_argument(
            "--using",
            choices=tuple(connections),
            help="the database whose open transaction the event waits for, when this command is "
            "called from code",
        )
        publish.add_argument(
            "--ephemeral", action="store_true", help="broadcast only; it is not kept in the log"
        )
        add_common(publish, "print the event as clients get it")

        listen = add("listen", LISTEN, LISTEN_EXAMPLES)
        listen.add_argument("topics", nargs="+", metavar="TOPIC")
        begin = listen.add_mutually_exclusive_group()
        begin.add_argument("--last", type=whole, metavar="N", help="begin with the newest N")
        begin.add_argument(
            "--since",
            type=read_since,
            metavar="CURSOR",
            help="go on after this cursor, or from @seconds since 1970",
        )
        listen.add_argument("--url", help="follow a site's topics, where it has the app mounted")
        listen.add_argument("--token-file", metavar="FILE", help="the token for --url")
        listen.add_argument("--count", type=positive, metavar="N", help="end after N events")
        add_common(listen, "print frames as clients get them, one a line")

        trim = add("trim", TRIM, TRIM_EXAMPLES)
        trim.add_argument("topics", nargs="*", metavar="TOPIC", help="by default every topic")
        add_common(trim, 'print {"removed": {topic: events}, "unregistered": [topics]}')

        new_epoch = add("new-epoch", NEW_EPOCH, NEW_EPOCH_EXAMPLES)
        new_epoch.add_argument("topics", nargs="+", metavar="TOPIC")
        add_common(new_epoch, "print a topic and its new cursor, one a line")

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
        names = list(dict.fromkeys(options["topics"]))  # twice the same name is one subscription
        since = options["since"]
        if isinstance(since, Cursor) and len(names) > 1:
            raise CommandError(
                "A cursor belongs to one topic: listen to that alone, or give --since a moment.",
                returncode=WRONG_CALL,
            )
        how = {"as_json": options["as_json"], "count": options["count"]}
        listener: Console
        if options["url"] is not None:
            client = connect_to(options["url"], read_token(options["token_file"]))
            listener = remote = RemoteListener(self.stdout, self.stderr, **how)
            start = f"@{since:f}" if isinstance(since, float) else since
            remote.run(client, names, start, options["last"])
        elif options["token_file"] is not None:
            raise CommandError("--token-file is for --url.", returncode=WRONG_CALL)
        else:
            listener = local = Listener(self.stdout, self.stderr, **how)
            local.run([read_topic(name) for name in names], since, options["last"])
        if listener.interrupted and listener.missing:
            sys.exit(INTERRUPTED)

    def trim(self, options: dict[str, Any]) -> None:
        store = get_store()
        for name in options["topics"]:
            read_topic(name)
        removed: dict[str, int] = {}
        unregistered = []
        logs = 0
        for name in options["topics"] or store.topics():
            if is_internal(name):
                store.trim(name, retention.INTERNAL_RETENTION)
                continue
            topic = find(name)
            if topic is None:
                unregistered.append(name)
                continue
            logs += 1
            if count := store.trim(name, retention.retention_of(topic)):
                removed[name] = count
                if not options["as_json"]:
                    self.print(f"{name}: {_events(count)} removed")
        if options["as_json"]:
            self.print(json.dumps({"removed": removed, "unregistered": unregistered}))
            return
        for name in unregistered:
            self.print(f"{name}: no pattern matches it any more, so nothing says what it keeps")
        total = _events(sum(removed.values()))
        self.print(f"{total} removed from {len(removed)} of {logs} logs")

    def new_epoch(self, options: dict[str, Any]) -> None:
        # All are looked up before the first is changed.
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
            "this command would see and change none but its own, which end with it. "
            f'Use {{"BACKEND": "{conf.DEFAULT_STORE}"}} in REALTIME["STORE"].'
        )


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
