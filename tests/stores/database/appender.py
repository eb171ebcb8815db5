"""A process that appends: `python -m tests.stores.database.appender DATABASE TOPIC COUNT`.

DATABASE is an entry of DATABASES as JSON. The process prints "ready", waits for a line, and then
prints the seq of each append that returned.
"""

import json
import sys

import django

from tests.support.databases import use_pymysql


def main(entry: str, topic: str, count: int) -> None:
    django.setup()
    from django.db import connections

    from realtime.protocol.events import Draft
    from realtime.stores.database import DatabaseStore

    if "mysql" in entry:
        use_pymysql()
    settings = connections.configure_settings({"default": {}, "log": json.loads(entry)})
    connections.settings["log"] = settings["log"]
    store = DatabaseStore(options={"using": "log"})
    print("ready", flush=True)
    sys.stdin.readline()
    last = 0
    for number in range(count):
        head = store.append(topic, [Draft("x", str(number))]).events[-1].seq or 0
        if head <= last:
            sys.exit(f"{head} after {last}")
        last = head
        print(last, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
