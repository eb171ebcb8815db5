"""Publishing to a Redis store from processes that are no server."""

from pathlib import Path

import pytest

from tests.support.redis import TOPIC, RedisServer, redis_settings
from tests.support.server import Server

TIMEOUT = 1.0  # seconds that the store waits for Redis
SLACK = 5.0  # more seconds for a busy machine; redis-py's own retries would take 30


@pytest.fixture
def project(tmp_path: Path, redis_server: RedisServer) -> Server:
    """The test project with Redis; its server is not started."""
    project = Server(tmp_path, settings=redis_settings(redis_server.url, timeout=10.0))
    project.run("from django.core.management import call_command; call_command('migrate', '-v0')")
    return project


@pytest.fixture
def hasty(project: Server, redis_server: RedisServer) -> Server:
    """The same project with a short timeout, and a layer that does not depend on Redis."""
    store = redis_settings(redis_server.url, timeout=TIMEOUT)["REALTIME"]
    return Server(project.folder, settings={"REALTIME": store})


def test_a_thousand_publishes_open_two_connections(
    project: Server, redis_server: RedisServer
) -> None:
    before = redis_server.connections_made()
    project.publish(TOPIC, 1_000)
    assert redis_server.connections_made() - before <= 2  # one of the store, one of the layer
    printed = project.run(
        "from realtime.log import history\n"
        f"print([event.seq for event in history({TOPIC!r}, last=2_000)])"
    )
    assert printed.strip() == str(list(range(1, 1_001)))


def test_each_forked_process_publishes_over_its_own_connections(project: Server) -> None:
    printed = project.run(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')  # newer Pythons warn about forks with threads\n"
        "from realtime import publish\n"
        "from realtime.log import history\n"
        f"publish({TOPIC!r}, 'parent')\n"
        "children = []\n"
        "for child in range(3):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        f"        for n in range(100): publish({TOPIC!r}, f'child-{{child}}', n)\n"
        "        os._exit(0)\n"
        "    children.append(pid)\n"
        f"for n in range(100): publish({TOPIC!r}, 'parent', n)\n"
        "assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]\n"
        f"events = history({TOPIC!r}, last=1_000)\n"
        "assert [event.seq for event in events] == list(range(1, 402))\n"
        "for child in range(3):\n"
        "    own = [event.data for event in events if event.name == f'child-{child}']\n"
        "    assert own == list(range(100)), own\n"
        "print('done')"
    )
    assert printed == "done\n"


PUBLISH_IN_VAIN = f"""
import asyncio, time
from realtime import PublishError, apublish, publish, publish_many

def fails(call):
    begin = time.monotonic()
    try:
        call()
    except PublishError as error:
        print(error)
    else:
        raise AssertionError("it was published")
    assert time.monotonic() - begin < {TIMEOUT + SLACK}

for _ in range(2):
    fails(lambda: publish({TOPIC!r}, "lost"))
    fails(lambda: publish_many([({TOPIC!r}, "lost", 1), ({TOPIC!r}, "lost", 2)]))
    fails(lambda: asyncio.run(apublish({TOPIC!r}, "lost")))
"""

PUBLISH_IN_A_TRANSACTION = f"""
import time
from django.db import transaction
from realtime import publish

begin = time.monotonic()
with transaction.atomic():
    assert publish({TOPIC!r}, "kept", 1) is None
    assert publish({TOPIC!r}, "kept", 2) is None
assert time.monotonic() - begin < {TIMEOUT + SLACK}
"""

RELAYED = f"""
from realtime import outbox
from realtime.log import history
print(outbox.relay_stale(older_than=-1))
print([(event.name, event.data) for event in history({TOPIC!r}, last=10)])
print(outbox.relay_stale(older_than=-1))
"""


@pytest.mark.parametrize("fault", ["gone", "hanging"])
def test_without_redis_a_publish_fails_in_time_and_one_in_a_transaction_is_relayed_later(
    project: Server, hasty: Server, redis_server: RedisServer, fault: str
) -> None:
    if fault == "gone":
        redis_server.kill9()
    else:
        redis_server.pause()
    printed = hasty.run(PUBLISH_IN_VAIN)
    assert printed.count(f"{TOPIC} could not be published to: RedisStore is not available") == 6
    hasty.run(PUBLISH_IN_A_TRANSACTION)
    if fault == "gone":
        redis_server.start()
    else:
        # Not resumed: it would append the commands that it received while it hung.
        redis_server.kill9()
        redis_server.start()
    relayed, events, again = project.run(RELAYED).splitlines()
    assert (relayed, again) == ("2", "0")
    assert events == str([("kept", 1), ("kept", 2)])


def test_an_event_whose_answer_was_lost_is_not_relayed_twice(
    project: Server, hasty: Server, redis_server: RedisServer
) -> None:
    redis_server.pause()
    try:
        hasty.run(PUBLISH_IN_A_TRANSACTION)
    finally:
        redis_server.resume()
    _, events, again = project.run(RELAYED).splitlines()
    assert events == str([("kept", 1), ("kept", 2)])
    assert again == "0"


PAGE = """
from django.template import Context, Template
from asgiref.sync import async_to_sync
from realtime.log import asince, since

text = "{% load realtime %}{% realtime_script %}{% realtime_subscribe topic since=since %}"
for ask in (since, async_to_sync(asince)):
    page = Template(text).render(Context({"topic": "public.news", "since": ask("public.news")}))
    print(page.partition('since="')[2].partition('"')[0])
"""


def test_a_page_is_answered_while_redis_is_away_and_catches_up(
    hasty: Server, redis_server: RedisServer
) -> None:
    hasty.publish(TOPIC, 1)
    dump = redis_server.save()
    assert not any(one.startswith("@") for one in hasty.run(PAGE).split())
    redis_server.kill9()
    moments = hasty.run(PAGE).split()
    assert [one[0] for one in moments] == ["@", "@"]
    redis_server.restart(dump)
    hasty.publish(TOPIC, 1, name="later")
    printed = hasty.run(
        "from realtime.stores import get_store\n"
        f"cursor = get_store().locate({TOPIC!r}, since=float({moments[0]!r}[1:]))\n"
        f"print([event.name for event in get_store().read({TOPIC!r}, cursor).events][-1])"
    )
    assert printed == "later\n"
