"""The Redis store when Redis loses data, hangs, refuses commands or closes connections."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from realtime.exceptions import CursorExpired, StoreError, StoreUnavailable
from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores.base import Page
from realtime.stores.redis import RedisStore
from tests.stores.contract import Subject, cursor, in_threads
from tests.support.forgetful import ForgetfulBalancer
from tests.support.redis import RedisCluster, RedisServer
from tests.support.waiting import await_until, wait_until

X = [Draft("x", "1")]
PATIENCE = {"timeout": 10.0}  # so that a busy machine does not look like a fault
TIMEOUT = 0.3  # seconds, of a store whose server hangs
Restart = Callable[..., RedisServer]


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url, PATIENCE)
    yield store
    store.close()


@pytest.fixture
def impatient(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url, {"timeout": TIMEOUT})
    yield store
    store.close()


@pytest.fixture(params=["sync", "async"])
def log(store: RedisStore, request: pytest.FixtureRequest) -> Subject:
    return Subject(store, request.param)


@pytest.fixture
def start(redis_path: Path, tmp_path: Path) -> Iterator[Restart]:
    """Start servers with other settings."""
    servers: list[RedisServer] = []

    def start(**settings: str | list[str]) -> RedisServer:
        options = {name.replace("_", "-"): value for name, value in settings.items()}
        servers.append(RedisServer(redis_path, tmp_path / f"own-{len(servers)}", **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def connections(server: RedisServer) -> int:
    """Return how many clients are connected, without the test's own."""
    return len(server.client.client_list()) - 1


# A server that lost data


def test_a_restart_without_persistence_begins_a_new_epoch(
    redis_server: RedisServer, log: Subject
) -> None:
    start = log.head()
    events = log.fill(3)
    redis_server.restart()
    head = log.head()
    assert head.seq == 0
    assert head.epoch != start.epoch
    for lost in [start, *map(cursor, events)]:
        assert not log.expired(lost).contradicts
    assert log.append("new").events[0].seq == 1
    assert log.expired(start).head.seq == 1


def test_a_flush_begins_a_new_epoch(redis_server: RedisServer, log: Subject) -> None:
    start = log.head()
    log.fill(3)
    redis_server.client.flushall()
    assert list(log.store.topics()) == []
    assert not log.expired(start).contradicts
    assert log.append("new").previous.epoch != start.epoch


def test_an_older_dump_rewinds_the_log(redis_server: RedisServer, log: Subject) -> None:
    kept = log.fill(2)
    new = log.other()
    dump = redis_server.save()
    lost = log.fill(3)
    begun = new.fill(1)
    redis_server.restart(dump)
    for subject, last in ((log, cursor(lost[-1])), (new, cursor(begun[0]))):
        assert subject.expired(last).contradicts
        renewed = subject.renew(last.epoch)
        assert renewed.epoch != last.epoch
        assert subject.renew(last.epoch) == renewed == subject.head()
        assert not subject.expired(last).contradicts
    assert [event.seq for event in log.append("new").events] == [3]
    assert log.names(log.locate(last=3)) == ["e1", "e2", "new"]
    assert kept[0].seq == 1


def test_appends_after_a_restored_dump_do_not_hide_the_rewind(
    redis_server: RedisServer, log: Subject
) -> None:
    log.fill(1)
    dump = redis_server.save()
    known = cursor(log.fill(2)[-1])
    redis_server.restart(dump)
    for _ in range(4):  # up to the known seq, and beyond it
        log.append("other")
        assert log.expired(known).contradicts


def test_a_log_continues_after_a_restart_with_persistence(start: Restart) -> None:
    server = start(appendonly="yes", appendfsync="always")
    store = RedisStore(server.url, PATIENCE)
    log = Subject(store, "sync")
    begin = log.head()
    log.append(Draft("x", "1", id="a"), "y")
    server.kill9()
    server.start()
    assert log.names(begin) == ["x", "y"]
    assert log.append(Draft("x", "1", id="a")).events == ()
    assert log.append("z").events[0].seq == 3
    store.close()


def test_eviction_of_a_logs_entries_expires_its_cursors(
    redis_server: RedisServer, log: Subject
) -> None:
    assert isinstance(log.store, RedisStore)
    events = log.fill(4)
    meta, entries, *_ = log.store._keys(log.topic)
    redis_server.client.delete(entries)
    assert log.expired(cursor(events[1])).contradicts is False
    assert log.read(cursor(events[3])) == Page((), cursor(events[3]))
    log.append("after")
    for lost in events:
        assert log.expired(cursor(lost)).contradicts is False
    assert log.locate(last=3).seq == 5
    assert not log.expired(log.locate(since=events[3].time)).contradicts
    assert log.trim(max_events=1) == 4
    redis_server.client.delete(meta)
    assert log.append("again").events[0].seq == 1
    assert log.names(log.locate(last=9)) == ["again"]


def test_entries_deleted_by_hand_expire_cursors(redis_server: RedisServer, log: Subject) -> None:
    assert isinstance(log.store, RedisStore)
    events = log.fill(6)
    redis_server.client.xdel(log.store._keys(log.topic)[1], "3-0", "4-0")
    assert [event.seq for event in log.read(cursor(events[0])).events] == [2]
    for lost in events[1:4]:
        assert not log.expired(cursor(lost)).contradicts
    assert [event.seq for event in log.read(cursor(events[4])).events] == [6]
    assert log.trim(max_events=3) == 3
    assert log.trim(max_events=2) == 1
    assert [event.seq for event in log.read(log.locate(last=2)).events] == [5, 6]


# A server that cannot be reached, or cannot answer


def test_a_killed_server_is_unavailable_at_once_and_available_after_its_restart(
    redis_server: RedisServer, log: Subject
) -> None:
    events = log.fill(1)
    dump = redis_server.save()
    redis_server.kill9()
    for call in (lambda: log.append("x"), log.head, lambda: log.read(cursor(events[0]))):
        with pytest.raises(StoreUnavailable, match="RedisStore is not available"):
            call()
    redis_server.restart(dump)
    assert log.append("y").events[0].seq == 2


def test_a_server_that_hangs_is_unavailable_within_the_timeout(
    redis_server: RedisServer, log: Subject, impatient: RedisStore
) -> None:
    log.fill(1)
    hasty = Subject(impatient, log.mode, log.topic)
    once, after = Draft("once", "1", id="once"), Draft("after", "1", id="after")
    wait_until(lambda: answered(hasty.head), "the store has a connection")
    redis_server.pause()
    try:
        for call in (lambda: hasty.append(once), hasty.head):
            begin = time.monotonic()
            with pytest.raises(StoreUnavailable):
                call()
            # redis-py's own retries would take 30 seconds.
            assert time.monotonic() - begin < TIMEOUT + 5
    finally:
        redis_server.resume()
    # The server may have run the earlier commands; no other call gets their answers.
    wait_until(lambda: answered(lambda: hasty.append(once, after)), "the server answers again")
    assert log.names(log.locate(last=9)) == ["e1", "once", "after"]
    assert wait_until(lambda: answered(hasty.head), "the server answers") == log.head()


def answered(call: Callable[[], Any]) -> Any:
    """Return the result of a call; None if the store is not available."""
    try:
        return call()
    except StoreUnavailable:
        return None


def test_no_call_gets_the_answer_of_a_cancelled_call(
    redis_server: RedisServer, store: RedisStore
) -> None:
    async def cancel_and_call() -> None:
        head = (await store.aappend("t", X)).events[0].cursor
        redis_server.pause()
        cancelled = [asyncio.ensure_future(store.aclock()) for _ in range(20)]
        try:
            await asyncio.wait(cancelled, timeout=0.1)
        finally:
            redis_server.resume()
        for call in cancelled:
            call.cancel()
        answers = await asyncio.gather(*(store.aheads(["t"]) for _ in range(20)))
        assert answers == [{"t": head}] * 20

    asyncio.run(cancel_and_call())


def test_no_call_fails_after_the_server_closed_the_connections(
    redis_server: RedisServer, store: RedisStore
) -> None:
    async def both() -> None:
        for number in range(3):
            store.append("t", X)
            await store.aappend("t", X)
            assert await asyncio.to_thread(redis_server.cut, "normal") >= 2, number

    asyncio.run(both())
    assert store.append("t", X).events[0].seq == 7


def test_a_server_that_is_busy_with_a_script_is_unavailable(start: Restart) -> None:
    server = start(lua_time_limit="50")
    store = RedisStore(server.url, PATIENCE)
    store.append("t", X)
    with server.client.client() as other:
        other.connection.send_command("EVAL", "while true do end", 0)
        error = wait_until(lambda: _refusal(store), "the server answers BUSY")
        assert isinstance(error, StoreUnavailable)
        assert "BUSY" in str(error)
        server.client.script_kill()
    wait_until(lambda: _refusal(store) is None, "the server answers again")
    store.close()


def _refusal(store: RedisStore) -> StoreError | None:
    try:
        store.read("t", store.heads(["t"])["t"])
    except StoreError as error:
        return error
    return None


def test_a_server_out_of_memory_is_unavailable_and_the_log_stays_intact(
    redis_server: RedisServer, log: Subject
) -> None:
    events = log.fill(2)
    redis_server.client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="OOM"):
        log.append("x", Draft("y", "1", id="y"))
    redis_server.client.config_set("maxmemory", "0")
    assert log.head() == cursor(events[1])
    assert [event.seq for event in log.append(Draft("y", "1", id="y")).events] == [3]


def test_a_replica_is_unavailable_for_appends(redis_server: RedisServer, start: Restart) -> None:
    first = RedisStore(redis_server.url, PATIENCE)
    head = first.append("t", X).events[0].cursor
    replica = start(replicaof=["127.0.0.1", str(redis_server.port)])
    second = RedisStore(replica.url, PATIENCE)
    wait_until(lambda: _head(second) == head, "the replica has the log")
    with pytest.raises(StoreUnavailable, match="READONLY"):
        second.append("t", X)
    assert second.read("t", first.locate("t", last=1)).events[0].seq == 1
    first.close()
    second.close()


def _head(store: RedisStore) -> Cursor | None:
    try:
        return store.heads(["t"])["t"]
    except StoreUnavailable:
        return None


# A server that refuses commands


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
def test_a_wrong_password_is_an_error_that_does_not_contain_it(
    redis_server: RedisServer, credentials: str
) -> None:
    server = redis_server
    server.client.config_set("requirepass", "right")
    with pytest.raises(StoreError) as caught:
        RedisStore(f"redis://{credentials}127.0.0.1:{server.port}").append("t", X)
    assert not isinstance(caught.value, StoreUnavailable)
    assert "was refused by Redis" in str(caught.value)
    assert "wrong" not in str(caught.value).replace("wrong number", "")
    store = RedisStore(f"redis://:right@127.0.0.1:{server.port}", PATIENCE)
    assert store.append("t", X).kept == 1
    store.close()


def test_a_user_without_permission_is_an_error(redis_server: RedisServer) -> None:
    redis_server.client.execute_command("ACL", "SETUSER", "ada", "on", ">pw", "~*", "+get")
    with pytest.raises(StoreError, match="NOPERM") as caught:
        RedisStore(f"redis://ada:pw@127.0.0.1:{redis_server.port}").append("t", X)
    assert not isinstance(caught.value, StoreUnavailable)


def test_a_server_that_is_too_old_is_an_error_with_the_minimum_version(start: Restart) -> None:
    server = start(rename_command=["EVALSHA", ""])
    with pytest.raises(StoreError, match=r"it needs Redis 6\.2 or newer") as caught:
        RedisStore(server.url, PATIENCE).append("t", X)
    assert not isinstance(caught.value, StoreUnavailable)


def test_a_key_of_another_type_is_an_error_and_stays(
    redis_server: RedisServer, log: Subject
) -> None:
    assert isinstance(log.store, RedisStore)
    log.fill(1)
    entries = log.store._keys(log.topic)[1]
    redis_server.client.set(entries, "mine", keepttl=False)
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        log.append("x")
    assert not isinstance(caught.value, StoreUnavailable)
    assert redis_server.client.get(entries) == "mine"
    assert log.head().seq == 1


def test_a_wrong_cluster_option_is_an_error_that_names_it(
    redis_cluster: RedisCluster, redis_server: RedisServer
) -> None:
    store = RedisStore(f"redis://127.0.0.1:{redis_cluster.nodes[0].port}")
    with pytest.raises(StoreError, match='"cluster": True') as caught:
        for number in range(50):  # their hash tag {0} is on another node
            store.append(f"t{number}", X)
    assert not isinstance(caught.value, StoreUnavailable)
    with pytest.raises(StoreError, match='leave "cluster" out') as caught:
        RedisStore(redis_server.url, {"cluster": True}).append("t", X)
    assert not isinstance(caught.value, StoreUnavailable)


# Scripts, connections and processes


def test_a_server_without_the_scripts_gets_them_again(
    redis_server: RedisServer, log: Subject
) -> None:
    events = log.fill(1)
    redis_server.client.script_flush()
    assert log.names(log.locate(last=1)) == ["e1"]
    redis_server.client.script_flush()
    assert log.append("x").previous == cursor(events[0])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Python warns about the sockets
def test_clients_of_loops_that_were_closed_without_shutdown_asyncgens_are_freed(
    redis_server: RedisServer, store: RedisStore
) -> None:
    """``asyncio.run()`` finishes the generators of a loop; ``loop.close()`` alone does not."""
    closed = []
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.aappend("t", X))
        loop.close()
        closed.append(weakref.ref(loop))
    del loop
    asyncio.run(store.aappend("t", X))
    gc.collect()
    assert [ref() for ref in closed] == [None] * 5
    wait_until(lambda: connections(redis_server) == 0, "their connections are closed")
    assert store.heads(["t"])["t"].seq == 6


def test_threads_and_loops_use_few_connections_and_close_closes_them(
    redis_server: RedisServer, store: RedisStore
) -> None:
    in_threads(8, lambda _: [store.append("t", X) for _ in range(20)])
    assert connections(redis_server) <= 8

    async def many() -> None:
        await asyncio.gather(*(store.aheads([f"t{number}"]) for number in range(200)))
        assert connections(redis_server) <= 8 + 16
        store.close()
        await await_until(lambda: connections(redis_server) == 0, "all are closed")
        await store.aappend("t", X)
        store.append("t", X)
        assert connections(redis_server) == 2

    asyncio.run(many())
    assert store.heads(["t"])["t"].seq == 162
    wait_until(lambda: connections(redis_server) == 1, "the loop's connection is closed with it")


def test_the_heads_of_many_topics_are_one_command(redis_server: RedisServer, log: Subject) -> None:
    log.head()
    before = _commands(redis_server)
    assert len(log.call("heads", [f"t{number}" for number in range(1_500)])) == 1_500
    after = _commands(redis_server)
    assert {name: after[name] - before.get(name, 0) for name in after if "mget" in name} == {
        "cmdstat_mget": 1
    }
    assert after.get("cmdstat_evalsha") == before.get("cmdstat_evalsha")


def _commands(server: RedisServer) -> dict[str, int]:
    stats: dict[str, Any] = server.client.info("commandstats")  # type: ignore[assignment]
    return {"cmdstat_mget": 0} | {name: one["calls"] for name, one in stats.items()}


# A cluster with a node that hangs, or loses its data


def test_a_node_that_hangs_makes_only_its_own_topics_unavailable(
    redis_cluster: RedisCluster,
) -> None:
    options: dict[str, object] = {"cluster": True, "prefix": "hangs"}
    store = RedisStore(redis_cluster.url, options | PATIENCE)
    hasty = RedisStore(redis_cluster.url, options | {"timeout": TIMEOUT})
    logs = [Subject(store, mode) for mode in ("sync", "async") for _ in range(12)]
    for log in logs:
        log.fill(1)
    node = redis_cluster.nodes[1]
    stuck = {name.rsplit(":", 1)[1] for name in node.client.keys("hangs:*:meta:*")}
    assert 0 < len(stuck) < len(logs)
    node.pause()
    try:
        for mode in ("sync", "async"):
            with pytest.raises(StoreUnavailable):
                Subject(hasty, mode).call("heads", [log.topic for log in logs])
        for log in logs:
            same = Subject(hasty, log.mode, log.topic)
            if log.topic in stuck:
                with pytest.raises(StoreUnavailable):
                    same.append("lost")
            else:
                # It can fail at first: the client may ask the hanging node for the slots.
                append = partial(same.append, Draft("x", "1", id="once"))
                wait_until(partial(answered, append), f"an append to {log.topic} succeeds")
                wait_until(partial(answered, same.head), f"{log.topic} has a head")
    finally:
        node.resume()
    for log in logs:
        found = log.names(log.locate(last=9))
        assert found in ([["e1", "x"]] if log.topic not in stuck else [["e1"], ["e1", "lost"]])
    store.close()
    hasty.close()


def test_a_node_that_loses_its_data_resets_only_its_own_topics(redis_cluster: RedisCluster) -> None:
    store = RedisStore(redis_cluster.url, {"cluster": True} | PATIENCE)
    logs = [Subject(store, mode) for mode in ("sync", "async") for _ in range(20)]
    starts = [log.head() for log in logs]
    events: list[list[Event]] = [log.fill(2) for log in logs]
    lost_node = redis_cluster.nodes[1]
    lost = {name.rsplit(":", 1)[1] for name in lost_node.client.keys("*:meta:*")}
    assert 0 < sum(log.topic in lost for log in logs) < len(logs)
    redis_cluster.restart(lost_node)
    wait_until(lambda: _refusal(store) is None, "the client finds the node again")
    heads = store.heads([log.topic for log in logs])
    for log, start, appended in zip(logs, starts, events, strict=True):
        if log.topic in lost:
            assert heads[log.topic].seq == 0
            assert log.append("new").events[0].seq == 1
            for known in (start, cursor(appended[0])):
                with pytest.raises(CursorExpired):
                    store.read(log.topic, known)
        else:
            assert heads[log.topic] == cursor(appended[1])
            assert log.names(start) == ["e1", "e2"]
    store.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_append_over_a_connection_that_a_balancer_forgot_succeeds_once(
    redis_server: RedisServer, kind: str
) -> None:
    with ForgetfulBalancer(redis_server.port) as balancer:
        options = {"timeout": TIMEOUT, "keepalive": 1}
        store = RedisStore(f"redis://127.0.0.1:{balancer.port}/0", options)

        async def append() -> None:
            if kind == "sync":
                await asyncio.to_thread(store.append, "t", X)
            else:
                await store.aappend("t", X)

        await append()
        balancer.forget()
        idle_until = time.monotonic() + 1.1
        await await_until(lambda: time.monotonic() > idle_until, "the connection was idle", 10)
        accepted = balancer.accepted
        await append()
        assert balancer.accepted == accepted + 1
        assert store.heads(["t"])["t"].seq == 2
        store.close()
