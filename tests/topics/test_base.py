"""Topics: names and values, permissions and actions."""

import asyncio
import copy
import logging
import pickle
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404
from django.test import override_settings
from django.urls import converters
from redis.exceptions import TimeoutError as RedisTimeoutError

import realtime
from realtime.exceptions import InvalidTopicName, ProtocolError, StoreUnavailable
from realtime.protocol.frames import ErrorCode
from realtime.topics import (
    EveryoneTopic,
    Topic,
    UserTopic,
    action,
    base,
    find,
    isolated,
    register,
    resolve,
    unregister,
    user_topic,
)
from realtime.user_code import ACTIONS
from tests.testapp.topics import OrderTopic, PublicTopic

ALICE = User(pk=7, username="alice")
BOB = User(pk=8, username="bob")
ANONYMOUS = AnonymousUser()


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


# Names and values


def test_topics_created_from_values_and_from_a_name_are_equal() -> None:
    created, found = OrderTopic(pk=42), resolve("orders.42")
    assert type(found) is OrderTopic
    assert str(created) == str(found) == "orders.42"
    assert created.pk == found.pk == 42
    assert repr(created) == repr(found) == "OrderTopic(pk=42)"
    assert created == found
    assert hash(created) == hash(found)
    assert len({created, found, OrderTopic(pk=43)}) == 2


def test_a_topic_is_not_equal_to_its_name() -> None:
    assert OrderTopic(pk=42) != "orders.42"


def test_values_are_converted_as_those_in_a_name_are() -> None:
    assert OrderTopic(pk="42").pk == 42  # type: ignore[arg-type]


def test_missing_and_unknown_values_are_rejected() -> None:
    with pytest.raises(TypeError, match="without pk"):
        OrderTopic()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="with the unknown id"):
        OrderTopic(pk=1, id=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"by name: write OrderTopic\(pk=…\)"):
        OrderTopic(1)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"write EveryoneTopic\(\)"):
        EveryoneTopic("x")  # type: ignore[misc]


def test_values_that_the_pattern_does_not_accept_are_rejected() -> None:
    with pytest.raises(
        InvalidTopicName, match=r"^the pattern 'orders\.<int:pk>' does not accept pk=-1: "
    ):
        OrderTopic(pk=-1)


def test_values_cannot_be_changed() -> None:
    topic = OrderTopic(pk=42)
    with pytest.raises(AttributeError, match="create another topic"):
        topic.pk = 43  # type: ignore[misc]
    topic.note = "can_subscribe() can cache objects on the topic"  # type: ignore[attr-defined]
    assert topic.pk == 42


def test_a_topic_can_be_copied_and_pickled() -> None:
    topic = OrderTopic(pk=42)
    for duplicate in (copy.deepcopy(topic), pickle.loads(pickle.dumps(topic))):
        assert duplicate == topic
        assert duplicate.pk == 42


def test_a_topic_of_an_unregistered_class_cannot_be_created() -> None:
    class Unregistered(Topic):
        pass

    class Special(OrderTopic):
        pass

    for create in (Topic, Unregistered, partial(Special, pk=1)):
        with pytest.raises(TypeError, match="has no pattern"):
            create()


def test_a_class_is_not_a_topic() -> None:
    with pytest.raises(TypeError, match=r"create a topic of it: OrderTopic\(pk=…\)"):
        resolve(OrderTopic)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"create a topic of it: Topic\(…\)"):
        resolve(Topic)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "orders.", "orders 42", "$control", "orders.42\n", "ö"])
def test_a_name_outside_the_grammar_is_invalid(name: str) -> None:
    for look_up in (find, resolve):
        with pytest.raises(InvalidTopicName):
            look_up(name)


def test_register_without_a_pattern_is_rejected() -> None:
    with pytest.raises(TypeError, match=r'write @register\("orders.* above .*NewTopic'):

        @register  # type: ignore[arg-type]
        class NewTopic(Topic):
            pass


def test_converters_of_the_project_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Year:
        regex = "[0-9]{4}"

        def to_python(self, value: str) -> int:
            return int(value)

        def to_url(self, value: int) -> str:
            return f"{value:04}"

    known = {**converters.get_converters(), "year": Year()}
    monkeypatch.setattr(base, "get_converters", lambda: known)

    @register("archive.<year:year>")
    class ArchiveTopic(Topic):
        year: int

    assert resolve("archive.0042") == ArchiveTopic(year=42)
    assert find("archive.42") is None


# Discovery


def test_topics_modules_of_installed_apps_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    unregister(OrderTopic)
    monkeypatch.delitem(sys.modules, "tests.testapp.topics")
    base.autodiscover()
    assert type(resolve("orders.42")).__name__ == "OrderTopic"


def test_the_package_exports_the_public_names() -> None:
    assert realtime.Topic is Topic
    assert realtime.register is register
    assert realtime.action is action
    assert realtime.user_topic is user_topic


# Permissions


class Undecided:
    """A value that is neither true nor false, like a queryset on the event loop."""

    def __bool__(self) -> bool:
        raise SystemExit


class PermissionMethods:
    """The ways in which a permission method can answer."""

    def sync_yes(self, user: Any, *event: str) -> bool:
        return True

    async def async_yes(self, user: Any, *event: str) -> bool:
        await asyncio.sleep(0)
        return True

    def returned_coroutine(self, user: Any, *event: str) -> Any:
        return self.async_yes(user)

    def truthy(self, user: Any, *event: str) -> Any:
        return ["row"]

    def sync_no(self, user: Any, *event: str) -> bool:
        return False

    async def async_no(self, user: Any, *event: str) -> bool:
        return False

    def returned_coroutine_no(self, user: Any, *event: str) -> Any:
        return self.async_no(user)

    def nothing(self, user: Any, *event: str) -> None:
        return None

    async def async_nothing(self, user: Any, *event: str) -> None:
        return None

    def denied(self, user: Any, *event: str) -> bool:
        raise PermissionDenied

    def sync_crash(self, user: Any, *event: str) -> bool:
        raise RuntimeError("broken")

    async def async_odd(self, *args: Any) -> Any:
        return Undecided()

    async def async_crash(self, user: Any, *event: str) -> bool:
        raise RuntimeError("broken")


def topic_with(method: str, **attributes: Any) -> Topic:
    answer = getattr(PermissionMethods, method)
    attributes = {
        "can_subscribe": answer,
        "can_publish": answer,
        "async_yes": PermissionMethods.async_yes,
        "async_no": PermissionMethods.async_no,
        "client_events": {"typing"},
        "stored_client_events": {"comment"},
        **attributes,
    }
    return register("asked")(type("AskedTopic", (Topic,), attributes))()


@pytest.mark.parametrize("method", ["sync_yes", "async_yes", "returned_coroutine", "truthy"])
async def test_a_permission_method_can_allow(method: str, caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is True
    assert await topic.may_publish(ALICE, "typing") is True
    assert await topic.may_publish(ALICE, "comment") is True
    assert not caplog.records


@pytest.mark.parametrize(
    "method", ["sync_no", "async_no", "returned_coroutine_no", "nothing", "async_nothing", "denied"]
)
async def test_a_permission_method_can_deny(method: str, caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is False
    assert await topic.may_publish(ALICE, "typing") is False
    assert not caplog.records


@pytest.mark.parametrize("method", ["sync_crash", "async_crash", "async_odd"])
async def test_an_exception_in_a_permission_method_denies_and_is_logged(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is False
    assert await topic.may_publish(ALICE, "typing") is False
    (record,) = caplog.records  # both are the same method
    assert record.name == "realtime"
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "AskedTopic()" in caplog.text


@pytest.mark.parametrize("error", [ObjectDoesNotExist, User.DoesNotExist, Http404])
async def test_an_object_that_does_not_exist_denies_and_is_not_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def can_subscribe(self: Topic, user: Any) -> bool:
        raise error

    assert await topic_with("sync_yes", can_subscribe=can_subscribe).may_subscribe(ALICE) is False
    assert not caplog.records


COULD_NOT_ASK = [
    OperationalError("server closed the connection"),
    InterfaceError("connection already closed"),
    TimeoutError(),
    ConnectionRefusedError(),
    RedisTimeoutError(),
    StoreUnavailable("RedisStore", "no answer"),
]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", COULD_NOT_ASK, ids=lambda error: type(error).__name__)
async def test_an_outage_in_a_permission_method_is_no_denial(
    error: Exception, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def sync(self: Topic, user: Any, event: str = "") -> bool:
        raise error

    async def coroutine(self: Topic, user: Any, event: str = "") -> bool:
        raise error

    method = coroutine if is_async else sync
    topic = topic_with("sync_yes", can_subscribe=method, can_publish=method)
    for asking in (topic.may_subscribe(ALICE), topic.may_publish(ALICE, "typing")):
        with pytest.raises(ProtocolError) as caught:
            await asking
        assert caught.value.code == "unavailable"
        assert ErrorCode(caught.value.code).retry
    assert "could not be asked" in caplog.text


async def test_a_value_that_no_column_can_hold_is_a_denial() -> None:
    def can_subscribe(self: Topic, user: Any) -> bool:
        raise DataError("integer out of range")

    topic = topic_with("sync_yes", can_subscribe=can_subscribe)
    assert await topic.may_subscribe(ALICE) is False


async def test_a_failure_is_logged_once_a_minute_for_a_topic_class(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = topic_with("sync_crash")
    for _ in range(50):
        assert await topic.may_subscribe(ALICE) is False
    assert len(caplog.records) == 1


async def test_a_permission_method_without_a_name_that_fails_denies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = topic_with("sync_yes", can_subscribe=staticmethod(partial(int, "x")))
    assert not await topic.may_subscribe(ALICE)
    assert "so permission is denied" in caplog.text


@pytest.mark.parametrize("method", ["nothing", "async_nothing"])
async def test_a_permission_method_that_returns_none_is_logged_with_debug(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_with(method)
    with override_settings(DEBUG=True):
        assert await topic.may_subscribe(ALICE) is False
        assert await topic.may_publish(ALICE, "typing") is False
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert f"{method}() of AskedTopic() returned None, so permission is denied" in caplog.text
        caplog.clear()
        topics = topic_with("sync_no"), topic_with("async_no"), topic_with("denied")
        assert not any([await topic.may_subscribe(ALICE) for topic in topics])
        assert not caplog.records


async def test_nothing_is_allowed_by_default() -> None:
    @register("notes.new")
    class NewTopic(Topic):
        anonymous = True
        client_events = {"typing"}

    for user in (ALICE, ANONYMOUS):
        assert not await NewTopic().may_subscribe(user)
        assert not await NewTopic().may_publish(user, "typing")


async def test_only_client_events_can_be_published_by_clients() -> None:
    assert not await topic_with("sync_yes").may_publish(ALICE, "shipped")


async def test_an_anonymous_user_is_denied_without_calling_the_permission_method() -> None:
    topic = topic_with("sync_crash")
    for user in (ANONYMOUS, None):
        assert not await topic.may_subscribe(user)  # type: ignore[arg-type]
        assert not await topic.may_publish(user, "typing")  # type: ignore[arg-type]


async def test_a_topic_can_allow_anonymous_users() -> None:
    topic = topic_with("sync_yes", anonymous=True)
    assert await topic.may_subscribe(ANONYMOUS)
    assert await topic.may_publish(ANONYMOUS, "typing")
    assert await PublicTopic(name="news").may_subscribe(ANONYMOUS)


async def test_a_cancelled_permission_check_is_cancelled_and_not_denied() -> None:
    started = asyncio.Event()

    async def wait(self: Topic, user: Any) -> bool:
        started.set()
        await asyncio.Event().wait()
        return True

    task = asyncio.create_task(topic_with("sync_yes", can_subscribe=wait).may_subscribe(ALICE))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.django_db(transaction=True)
async def test_a_sync_permission_method_can_query_the_database_and_return_a_queryset() -> None:
    def can_subscribe(self: Topic, user: Any) -> Any:
        return User.objects.filter(username=user.username)

    topic = topic_with("sync_yes", can_subscribe=can_subscribe)
    await User.objects.acreate(username="alice")
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(BOB)


# User topics


async def test_only_the_user_can_follow_its_topic() -> None:
    topic = user_topic(ALICE)
    assert str(topic) == "user.7"
    assert topic == resolve("user.7") == UserTopic(key="7")
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(BOB)
    assert not await topic.may_subscribe(ANONYMOUS)
    assert not await topic.may_publish(ALICE, "typing")


async def test_a_primary_key_with_special_characters_is_escaped_in_the_topic() -> None:
    user = types.SimpleNamespace(pk="a.b/ü~", is_authenticated=True)
    topic = user_topic(user)  # type: ignore[arg-type]
    assert str(topic) == "user.a~2Eb~2F~C3~BC~7E"
    found = resolve(str(topic))
    assert await found.may_subscribe(user)  # type: ignore[arg-type]
    assert not await found.may_subscribe(ALICE)


@pytest.mark.parametrize("user", [ANONYMOUS, User(username="new")])
def test_a_user_without_a_primary_key_has_no_topic(user: Any) -> None:
    with pytest.raises(ValueError, match="no primary key"):
        user_topic(user)


async def test_every_signed_in_user_can_follow_everyone() -> None:
    topic = resolve("everyone")
    assert topic == EveryoneTopic()
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(ANONYMOUS)
    assert not await topic.may_publish(ALICE, "typing")


# Actions


async def test_actions_can_be_called() -> None:
    topic = OrderTopic(pk=42)
    rename, echo = topic.get_action("rename"), topic.get_action("echo")
    assert rename is not None
    assert echo is not None
    assert await ACTIONS.run("alice", rename, ALICE, "x") == {"pk": 42, "name": "x", "by": "alice"}
    assert await ACTIONS.run("alice", echo, ALICE, [1]) == [1]


@pytest.mark.parametrize(
    "name",
    ["not_an_action", "can_subscribe", "may_subscribe", "pk", "__init__", "get_action", "", "x"],
)
def test_other_attributes_cannot_be_called(name: str) -> None:
    assert OrderTopic(pk=42).get_action(name) is None


def test_actions_are_inherited_unless_an_override_is_not_an_action() -> None:
    class Base(Topic):
        @action
        def go(self, user: Any, data: Any) -> str:
            return "base"

    @register("one")
    class One(Base):
        pass

    @register("two")
    class Two(Base):
        def go(self, user: Any, data: Any) -> str:
            return "two"

    topic = One()
    assert topic.get_action("go") == topic.go
    assert Two().get_action("go") is None


def test_an_action_must_be_a_method_with_a_public_name() -> None:
    def _hidden(self: Topic, user: Any, data: Any) -> None: ...

    with pytest.raises(TypeError, match="begins with _"):
        action(_hidden)
    with pytest.raises(TypeError, match="decorates a method"):
        action("rename")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="decorates a method"):
        action(classmethod(_hidden))  # type: ignore[type-var]
