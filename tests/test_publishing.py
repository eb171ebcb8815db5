"""publish() and its variants: exactly the committed events, and none before the commit."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction
from django.test import AsyncClient, Client, RequestFactory, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime import outbox, publishing
from realtime.broadcast import Wakeup
from realtime.exceptions import (
    AmbiguousTransaction,
    DataNotSerializable,
    DataTooLarge,
    InvalidEventName,
    InvalidTopicName,
    PublishError,
    StoreUnavailable,
    UnknownTopic,
)
from realtime.log import history
from realtime.models import OutboxEntry
from realtime.protocol.events import Event
from realtime.publishing import apublish, apublish_many, publish, publish_many
from realtime.stores import get_store
from tests.support.services import require
from tests.support.waiting import wait_until
from tests.testapp.models import Note
from tests.testapp.topics import OrderTopic, PublicTopic
from tests.urls import Broken

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("two_aliases"),
]

TOPIC = "public.news"


def names(topic: str = TOPIC) -> list[str]:
    return [event.name for event in history(topic, last=10_000)]


def waiting(alias: str = "default") -> int:
    return OutboxEntry.objects.using(alias).count()


# Outside a transaction


def test_the_event_is_in_the_log_when_publish_returns() -> None:
    event = publish(TOPIC, "first", {"n": 1})
    assert isinstance(event, Event)
    assert event.seq == 1
    assert event.data == {"n": 1}
    assert [e.cursor for e in history(TOPIC)] == [event.cursor]


def test_a_topic_instance_and_its_name_are_equivalent() -> None:
    publish(PublicTopic(name="news"), "one")
    publish(TOPIC, "two")
    assert names() == ["one", "two"]


def test_data_is_encoded_at_the_call() -> None:
    data = {"n": [1]}
    event = publish(TOPIC, "first", data)
    data["n"].append(2)
    assert event is not None
    assert event.data == history(TOPIC)[0].data == {"n": [1]}


@pytest.mark.parametrize(
    ("topic", "name", "data", "error"),
    [
        ("pubic.news", "x", None, UnknownTopic),
        ("public..news", "x", None, InvalidTopicName),
        (TOPIC, "", None, InvalidEventName),
        (TOPIC, "a b", None, InvalidEventName),
        (TOPIC, "x", {"price": float("nan")}, DataNotSerializable),
        (TOPIC, "x", {"it": object()}, DataNotSerializable),
        (TOPIC, "x", "a" * 70_000, DataTooLarge),
    ],
)
def test_an_invalid_event_raises_at_the_call_and_leaves_the_transaction_usable(
    topic: str, name: str, data: Any, error: type[Exception]
) -> None:
    with transaction.atomic():
        with pytest.raises(error):
            publish(topic, name, data)
        Note.objects.create(text="still works")
        publish(TOPIC, "after")
    assert names() == ["after"]
    assert Note.objects.count() == 1


def test_an_unknown_topic_lists_the_nearest_pattern() -> None:
    with pytest.raises(UnknownTopic) as caught:
        publish("pubic.news", "x")
    assert "public.<slug:name>" in caught.value.nearest


def test_the_error_names_the_path_of_a_value_that_cannot_be_sent() -> None:
    with pytest.raises(DataNotSerializable) as caught:
        publish(TOPIC, "x", {"lines": [{"price": float("inf")}]})
    assert caught.value.path == "data['lines'][0]['price']"


def test_a_number_that_javascript_cannot_read_is_refused_in_tests_and_in_debug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = 2**53 + 1
    with pytest.raises(DataNotSerializable, match=r"data\['id'\].* send a string"):
        publish("public.news", "tick", {"id": number})
    monkeypatch.delattr("django.core.mail.outbox")  # only Django's test environment has it
    with override_settings(DEBUG=True), pytest.raises(DataNotSerializable):
        publish("public.news", "tick", {"id": number})
    event = publish("public.news", "tick", {"id": number})
    assert event is not None
    assert event.data == {"id": number}


def test_publish_in_an_event_loop_names_its_async_version() -> None:
    async def wrong() -> None:
        publish(TOPIC, "x")

    with pytest.raises(SynchronousOnlyOperation, match="apublish"):
        asyncio.run(wrong())


def test_a_store_that_fails_raises_publish_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise StoreUnavailable("DatabaseStore", "gone")

    monkeypatch.setattr(get_store(), "append", fail)
    with pytest.raises(PublishError, match=r"public\.news could not be published to.*gone"):
        publish(TOPIC, "x")


# In a transaction


def test_an_event_waits_for_the_commit_and_no_longer() -> None:
    with transaction.atomic():
        Note.objects.create(text="paid")
        assert publish(TOPIC, "paid") is None
        assert waiting() == 1
        assert names() == []
    assert names() == ["paid"]
    assert waiting() == 0


def test_a_rollback_discards_the_event() -> None:
    with pytest.raises(Broken), transaction.atomic():
        publish(TOPIC, "never")
        raise Broken
    assert names() == []
    assert waiting() == 0
    assert outbox.relay_stale(older_than=-1) == 0


def test_a_rolled_back_savepoint_discards_only_its_own_events() -> None:
    with transaction.atomic():
        publish(TOPIC, "one")
        with pytest.raises(Broken), transaction.atomic():
            publish(TOPIC, "never")
            raise Broken
        with transaction.atomic():
            publish(TOPIC, "two")
        publish(TOPIC, "three")
    assert names() == ["one", "two", "three"]


Block = st.deferred(lambda: st.tuples(st.booleans(), st.lists(st.none() | Block, max_size=4)))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(blocks=st.lists(st.none() | Block, max_size=4))
def test_exactly_the_committed_events_of_any_nesting_are_published_in_order(
    blocks: list[Any],
) -> None:
    name = f"public.{uuid.uuid4()}"
    count = iter(range(10_000))

    def run(items: list[Any]) -> list[str]:
        published = []
        for item in items:
            if item is None:
                number = f"e{next(count)}"
                publish(name, number)
                published.append(number)
                continue
            keep, inner = item
            try:
                with transaction.atomic():
                    inside = run(inner)
                    if not keep:
                        raise Broken
                published += inside
            except Broken:
                pass
        return published

    expected = run(blocks)
    assert names(name) == expected
    assert waiting() == 0


def test_a_loop_of_publishes_in_a_transaction_is_relayed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relayed = []
    real = outbox.relay
    monkeypatch.setattr(outbox, "relay", lambda *args: relayed.append(args) or real(*args))
    with transaction.atomic():
        for number in range(50):
            publish(TOPIC, f"e{number}")
    assert names() == [f"e{number}" for number in range(50)]
    assert relayed == [("default", TOPIC)]


def test_an_ephemeral_event_waits_for_the_commit_and_is_never_stored(
    announced: list[Wakeup],
) -> None:
    with transaction.atomic():
        assert publish(TOPIC, "typing", 1, ephemeral=True) is None
        assert announced == []
    assert [event.name for wakeup in announced for event in wakeup.events] == ["typing"]
    assert announced[0].events[0].cursor is None
    with pytest.raises(Broken), transaction.atomic():
        publish(TOPIC, "typing", 2, ephemeral=True)
        raise Broken
    assert len(announced) == 1
    assert names() == []


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Wakeup]:
    """Every wake-up that is sent."""
    sent: list[Wakeup] = []
    real = publishing.broadcast.broadcast

    def broadcast(wakeups: Any) -> None:
        sent.extend(wakeups)
        real(wakeups)

    monkeypatch.setattr(publishing.broadcast, "broadcast", broadcast)
    return sent


def test_a_wake_up_is_sent_after_its_append(announced: list[Wakeup]) -> None:
    with transaction.atomic():
        publish(TOPIC, "one")
        publish(TOPIC, "two")
        assert announced == []
    publish(TOPIC, "three")
    assert [event.seq for wakeup in announced for event in wakeup.events] == [1, 2, 3]
    assert announced[1].previous == history(TOPIC)[1].cursor.tag  # type: ignore[union-attr]


def test_a_store_that_fails_after_the_commit_does_not_break_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise StoreUnavailable("DatabaseStore", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(get_store(), "append_claimed", fail)
        with transaction.atomic():
            Note.objects.create(text="paid")
            publish(TOPIC, "paid")
    assert Note.objects.count() == 1
    assert "wait in the outbox" in caplog.text
    assert outbox.relay_stale(older_than=-1) == 1
    assert names() == ["paid"]


def test_publish_in_an_on_commit_hook_appends_at_once() -> None:
    published: list[Event | None] = []
    with transaction.atomic():
        transaction.on_commit(lambda: published.append(publish(TOPIC, "hooked")))
    assert [event and event.seq for event in published] == [1]


def test_an_event_waits_for_a_commit_while_autocommit_is_off() -> None:
    transaction.set_autocommit(False)
    try:
        assert publish(TOPIC, "never") is None
        transaction.rollback()
        assert publish(TOPIC, "paid") is None
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert outbox.relay_stale(older_than=-1) == 1
    assert names() == ["paid"]


# Several aliases


def test_using_names_the_transaction_of_the_event() -> None:
    with transaction.atomic(using="other"):
        assert publish(TOPIC, "kept", using="other") is None
        assert waiting("other") == 1
    with pytest.raises(Broken), transaction.atomic(using="other"):
        publish(TOPIC, "never", using="other")
        raise Broken
    assert names() == ["kept"]
    assert waiting("other") == 0


def test_a_transaction_on_another_alias_must_be_named() -> None:
    with transaction.atomic(using="other"):
        with pytest.raises(AmbiguousTransaction, match="using='other'"):
            publish(TOPIC, "which")
        assert publish(TOPIC, "now", using="default") is not None
        assert names() == ["now"]
    assert names() == ["now"]


def test_each_of_two_nested_transactions_keeps_its_own_events() -> None:
    with transaction.atomic():
        Note.objects.create(text="holds the lock that the log needs")
        with transaction.atomic(using="other"):
            publish(TOPIC, "other", using="other")
        publish(TOPIC, "default")
    wait_until(lambda: outbox.relay_stale(older_than=-1) or len(names()) == 2, "both are relayed")
    assert sorted(names()) == ["default", "other"]


def test_an_event_outside_the_transaction_that_holds_the_lock_survives_its_rollback() -> None:
    with pytest.raises(Broken), transaction.atomic():
        Note.objects.create(text="holds the lock that the log needs")
        assert publish(TOPIC, "kept", using="other") is None
        raise Broken
    assert waiting("other") == 1
    assert outbox.relay_stale(older_than=-1) == 1
    assert names() == ["kept"]


def test_the_error_names_an_alias_that_a_router_excludes() -> None:
    class NotThere:
        def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
            return False if (db, app_label) == ("other", "realtime") else None

    with (
        override_settings(DATABASE_ROUTERS=[NotThere()]),
        transaction.atomic(using="other"),
        pytest.raises(PublishError, match="migrate --database other"),
    ):
        publish(TOPIC, "x", using="other")


# Coroutines


async def test_apublish_appends_before_it_returns() -> None:
    event = await apublish(TOPIC, "first", {"n": 1})
    assert event is not None
    assert event.seq == 1


def test_apublish_under_async_to_sync_in_atomic_waits_for_the_commit() -> None:
    with transaction.atomic():
        assert async_to_sync(apublish)(TOPIC, "paid") is None
        assert names() == []
    assert names() == ["paid"]
    with pytest.raises(Broken), transaction.atomic():
        async_to_sync(apublish)(TOPIC, "never")
        async_to_sync(apublish_many)([(TOPIC, "never", None)])
        raise Broken
    assert names() == ["paid"]


async def test_apublish_ephemeral_is_announced(announced: list[Wakeup]) -> None:
    event = await apublish(TOPIC, "typing", ephemeral=True)
    assert event is not None
    assert event.cursor is None
    assert await sync_to_async(names)() == []


# Views


def test_views_publish_what_they_commit(client: Client) -> None:
    assert client.post("/publish/sync/").content == b"1"
    assert client.post("/publish/atomic/").content == b"waits"
    assert names() == ["sync", "atomic"]
    with pytest.raises(Broken):
        client.post("/publish/atomic/?fail=1")
    assert names() == ["sync", "atomic"]


async def test_async_view_publishes() -> None:
    response = await AsyncClient().post("/publish/async/")
    assert response.content == b"1"


def test_atomic_requests_keeps_the_event_until_the_response_is_made(client: Client) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert client.post("/publish/sync/").content == b"waits"
        assert names() == ["sync"]
        with pytest.raises(Broken):
            client.post("/publish/sync/?fail=1")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert names() == ["sync"]


def test_an_event_carries_only_a_hash_of_the_excluded_page() -> None:
    request = RequestFactory().post("/", headers={"X-Realtime-Origin": "a secret of the page"})
    event = publish(TOPIC, "x", exclude=request)
    assert event is not None
    assert event.origin == publishing.origin_hash("a secret of the page")
    assert "secret" not in str(event)
    assert history(TOPIC)[0].origin == event.origin
    without = publish(TOPIC, "x", exclude=RequestFactory().post("/"))
    assert without is not None
    assert without.origin is None


# publish_many()


def test_publish_many_returns_the_events_in_the_given_order() -> None:
    events = publish_many(
        [
            (TOPIC, "a", 1),
            (OrderTopic(pk=1), "b", 2),
            (TOPIC, "c", 3),
        ]
    )
    assert events is not None
    assert [(e.topic, e.name, e.seq) for e in events] == [
        (TOPIC, "a", 1),
        ("orders.1", "b", 1),
        (TOPIC, "c", 2),
    ]


async def test_apublish_many_returns_the_events_in_the_given_order() -> None:
    events = await apublish_many([("public.b", "x", None), ("public.a", "y", None)])
    assert events is not None
    assert [event.topic for event in events] == ["public.b", "public.a"]


def test_publish_many_with_one_bad_item_publishes_nothing() -> None:
    with pytest.raises(DataNotSerializable):
        publish_many([(TOPIC, "a", 1), (TOPIC, "b", object())])
    assert names() == []


@pytest.mark.parametrize(
    "wrong", [(TOPIC, "b"), (TOPIC, "b", 2, None), "abc", None, OrderTopic(pk=1)], ids=repr
)
async def test_publish_many_says_which_item_is_not_a_triple(wrong: Any) -> None:
    items = [(TOPIC, "a", 1), wrong]
    with pytest.raises(TypeError, match=r"^items\[1\] is .*, not \(topic, name, data\)$"):
        await apublish_many(items)
    with pytest.raises(TypeError, match=r"^items\[1\] is "):
        await sync_to_async(publish_many)(items)
    assert await sync_to_async(names)() == []


def test_publish_many_that_fails_midway_lists_what_was_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = get_store()
    real = store.append

    def append(topic: str, drafts: Any) -> Any:
        if topic == "public.b":
            raise StoreUnavailable("DatabaseStore", "gone")
        return real(topic, drafts)

    monkeypatch.setattr(store, "append", append)
    with pytest.raises(PublishError) as caught:
        publish_many([("public.b", "x", 1), ("public.a", "y", 2), ("public.c", "z", 3)])
    assert [event.topic for event in caught.value.published] == ["public.a"]
    assert names("public.c") == []


def test_publish_many_in_a_transaction_waits() -> None:
    with transaction.atomic():
        assert publish_many([(TOPIC, "a", 1), (TOPIC, "b", 2)]) is None
        assert names() == []
    assert names() == ["a", "b"]


# Threads and processes


def test_plain_threads_publish() -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                publish(TOPIC, f"from{number}")
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [event.seq for event in history(TOPIC)] == list(range(1, 41))


FORK = """
import os, sys
import django
django.setup()
from django.db import connections, transaction
from realtime import publish
publish("public.news", "parent", {})          # starts the loop's thread before the fork
connections.close_all()                       # as gunicorn and Celery do
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        publish("public.news", "child", {"of": number})
        with transaction.atomic():
            publish("public.news", "atomic-child", {"of": number})
        connections.close_all()
        sys.stdout.flush()
        os._exit(0)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
publish("public.news", "parent", {})
print(codes)
"""


def run_script(script: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_processes_forked_after_the_first_publish_publish_too() -> None:
    assert run_script(FORK).strip() == "[0, 0, 0]"
    published = names()
    assert published[0] == published[-1] == "parent"
    assert published.count("child") == published.count("atomic-child") == 3


def test_management_command_publishes() -> None:
    run_script(
        "import django; django.setup()\n"
        "from realtime import publish\n"
        "print(publish('public.news', 'commanded').cursor)"
    )
    assert names() == ["commanded"]


# A store in memory


@pytest.fixture
def memory_store() -> Iterator[None]:
    with override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}}):
        yield


def test_the_memory_store_uses_no_outbox(memory_store: None) -> None:
    with transaction.atomic():
        assert publish(TOPIC, "one") is None
        assert publish_many([(TOPIC, "two", None)]) is None
        assert waiting() == 0
        assert names() == []
    assert names() == ["one", "two"]
    with pytest.raises(Broken), transaction.atomic():
        publish(TOPIC, "never")
        raise Broken
    assert names() == ["one", "two"]


def run_process(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a project, with the databases of this test."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


AT_EXIT = """
import atexit, django
django.setup()
from django.db import transaction
from realtime import publish, publish_many

@atexit.register
def say_goodbye():
    publish("public.news", "now")
    publish("public.news", "ephemeral", ephemeral=True)
    with transaction.atomic():
        publish("public.news", "committed")
    publish_many([("public.news", "many", None)])

{before}
"""


@pytest.mark.parametrize("before", ["", "publish('public.news', 'before')"], ids=["first", "later"])
def test_a_process_publishes_while_it_exits(before: str) -> None:
    done = run_process(AT_EXIT.format(before=before))
    assert (done.returncode, done.stderr) == (0, "")
    assert names()[bool(before) :] == ["now", "committed", "many"]


IN_A_NOTEBOOK = """
import asyncio, django
django.setup()
from django.db import transaction
from realtime import publish, publish_many

async def cell():
    publish("public.news", "now")
    with transaction.atomic():
        publish("public.news", "committed")
    publish_many([("public.news", "many", None)])
    publish("public.news", "ephemeral", ephemeral=True)

asyncio.run(cell())
"""


def test_a_notebook_publishes_where_django_allows_the_orm() -> None:
    done = run_process(IN_A_NOTEBOOK, DJANGO_ALLOW_ASYNC_UNSAFE="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert names() == ["now", "committed", "many"]


GREEN = """
{patch}
import django
django.setup()
from django.db import transaction
from realtime import publish
from realtime.models import OutboxEntry

for _ in range(2):
    try:
        with transaction.atomic():
            publish("public.news", "never")
    except Exception as error:
        print(type(error).__name__, error)
print(OutboxEntry.objects.count(), "rows: the ORM works")
"""


@pytest.mark.parametrize(
    ("library", "patch"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()"),
    ],
)
def test_a_green_worker_is_refused_before_it_breaks_the_orm(library: str, patch: str) -> None:
    require(importlib.util.find_spec(library), f"{library}: pip install {library}")
    done = run_process(GREEN.format(patch=patch), PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    *refused, end = done.stdout.splitlines()
    assert end == "0 rows: the ORM works"
    assert [line.startswith("ImproperlyConfigured") for line in refused] == [True, True]
    assert f"from a {library} worker" in refused[0]


def test_an_event_in_memory_needs_a_commit_that_django_tells_of() -> None:
    connection.set_autocommit(False)
    try:
        with pytest.raises(PublishError, match="autocommit is off on 'default'"):
            publish(TOPIC, "typing", ephemeral=True)
        connection.rollback()
    finally:
        connection.set_autocommit(True)
