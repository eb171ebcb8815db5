"""Topics: registration, values from the name, authorisation, actions."""

import asyncio
import copy
import logging
import pickle
import sys
import threading
import types
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied, SynchronousOnlyOperation
from django.urls import converters

import realtime
from realtime.exceptions import InvalidTopicName, UnknownTopic
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
    run_user_code,
    unregister,
    user_topic,
)
from tests.testapp.topics import OrderTopic, PublicTopic, TinyTopic

if TYPE_CHECKING:
    from decimal import Decimal

ALICE = User(pk=7, username="alice")
BOB = User(pk=8, username="bob")
NOBODY = AnonymousUser()


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


# Names and values


def test_a_topic_is_the_same_from_its_values_and_from_its_name() -> None:
    made, found = OrderTopic(pk=42), resolve("orders.42")
    assert type(found) is OrderTopic
    assert str(made) == str(found) == "orders.42"
    assert made.pk == found.pk == 42
    assert repr(made) == repr(found) == "OrderTopic(pk=42)"
    assert made == found
    assert hash(made) == hash(found)
    assert len({made, found, OrderTopic(pk=43)}) == 2


def test_a_topic_is_not_equal_to_its_name() -> None:
    assert OrderTopic(pk=42) != "orders.42"


def test_values_are_converted_as_from_the_name() -> None:
    assert OrderTopic(pk="42").pk == 42  # type: ignore[arg-type]


def test_missing_and_unknown_values_are_refused() -> None:
    with pytest.raises(TypeError, match="without pk"):
        OrderTopic()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="with the unknown id"):
        OrderTopic(pk=1, id=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"by name: write OrderTopic\(pk=…\)"):
        OrderTopic(1)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"write EveryoneTopic\(\)"):
        EveryoneTopic("x")  # type: ignore[misc]


def test_values_that_no_name_has_are_refused() -> None:
    with pytest.raises(
        InvalidTopicName, match=r"^the pattern 'orders\.<int:pk>' does not accept pk=-1: "
    ):
        OrderTopic(pk=-1)


def test_values_cannot_be_changed() -> None:
    topic = OrderTopic(pk=42)
    with pytest.raises(AttributeError, match="make another topic"):
        topic.pk = 43  # type: ignore[misc]
    topic.note = "authorisers may keep what they looked up"  # type: ignore[attr-defined]
    assert topic.pk == 42


def test_a_topic_can_be_copied_and_pickled() -> None:
    topic = OrderTopic(pk=42)
    for twin in (copy.deepcopy(topic), pickle.loads(pickle.dumps(topic))):
        assert twin == topic
        assert twin.pk == 42


def test_a_topic_without_a_pattern_cannot_be_made() -> None:
    class Loose(Topic):
        pass

    class Special(OrderTopic):
        pass

    for make in (Topic, Loose, partial(Special, pk=1)):
        with pytest.raises(TypeError, match="has no pattern"):
            make()


# Resolving


def test_an_unknown_name_lists_the_nearest_patterns() -> None:
    with pytest.raises(UnknownTopic) as caught:
        resolve("order.42")
    assert caught.value.nearest[0] == "orders.<int:pk>"
    assert find("order.42") is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("orders.abc", "'abc' is no <int:pk>"),
        ("orders.007", "'007' is no <int:pk>, which is written '7'"),
        ("suite-~.9", "'~' is no <slug:name>"),
        ("suite-.9", ""),
        ("suite.9", ""),
        ("order.42", ""),
        ("orders.1.2", ""),
    ],
)
def test_a_value_of_another_form_is_said(name: str, reason: str) -> None:
    @register("suite-<slug:name>.<int:pk>")
    class SuiteTopic(Topic):
        name: str
        pk: int

    with pytest.raises(UnknownTopic) as caught:
        resolve(name)
    assert caught.value.reason == reason


def test_a_class_is_no_topic() -> None:
    with pytest.raises(TypeError, match=r"make one of them: OrderTopic\(pk=…\)"):
        resolve(OrderTopic)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"make one of them: Topic\(…\)"):
        resolve(Topic)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["orders.007", "orders.x", "orders", "orders.1.2", "Orders.1"])
def test_a_name_that_only_looks_alike_is_unknown(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize("name", ["", "orders.", "orders 42", "$control", "orders.42\n", "ö"])
def test_a_name_outside_the_grammar_is_invalid(name: str) -> None:
    for look in (find, resolve):
        with pytest.raises(InvalidTopicName):
            look(name)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_most_specific_pattern_wins_in_any_order_of_registration(reverse: bool) -> None:
    class Named(Topic):
        name: str

    class Bare(Topic):
        pass

    table = {
        "notes.new": type("New", (Bare,), {}),
        "notes.n-<slug:name>": type("Prefixed", (Named,), {}),
        "notes.<slug:name>": type("Named", (Named,), {}),
        "<slug:name>.new": type("Last", (Named,), {}),
    }
    for pattern in sorted(table, reverse=reverse):
        register(pattern)(table[pattern])
    for name, pattern in [
        ("notes.new", "notes.new"),
        ("notes.n-x", "notes.n-<slug:name>"),
        ("notes.x", "notes.<slug:name>"),
        ("shops.new", "<slug:name>.new"),
    ]:
        assert type(resolve(name)) is table[pattern]


def test_a_topic_cannot_take_a_name_of_a_more_specific_pattern() -> None:
    @register("notes.<slug:name>")
    class NoteTopic(Topic):
        name: str

    assert str(NoteTopic(name="new")) == "notes.new"

    @register("notes.new")
    class NewTopic(Topic):
        pass

    with pytest.raises(InvalidTopicName, match=r"more specific 'notes\.new'"):
        NoteTopic(name="new")
    assert str(NoteTopic(name="old")) == "notes.old"
    assert str(NewTopic()) == "notes.new"


def test_patterns_come_with_their_topics_the_more_specific_first() -> None:
    found = [(pattern.text, cls) for pattern, cls in base.patterns()]
    assert ("orders.<int:pk>", OrderTopic) in found
    assert found[0] == ("everyone", EveryoneTopic)


def test_registrations_can_be_undone() -> None:
    unregister(OrderTopic)
    assert find("orders.42") is None
    with pytest.raises(TypeError, match="has no pattern"):
        OrderTopic(pk=1)
    with pytest.raises(KeyError):
        unregister(OrderTopic)


def test_an_isolated_registration_ends_with_its_context() -> None:
    with isolated():

        @register("notes.new")
        class NewTopic(Topic):
            pass

        assert find("notes.new") == NewTopic()
    assert find("notes.new") is None


# Registering


def test_a_class_is_registered_once() -> None:
    with pytest.raises(TypeError, match=r"registered as 'orders\.<int:pk>' already"):
        register("bills.<int:pk>")(OrderTopic)


def test_a_reloaded_module_replaces_its_topics() -> None:
    def load() -> type[Topic]:
        @register("notes.<int:pk>")
        class NoteTopic(Topic):
            pk: int

        return NoteTopic

    load()
    second = load()
    assert [cls for pattern, cls in base.patterns() if pattern.text == "notes.<int:pk>"] == [second]


@pytest.mark.parametrize("thing", [int, Topic, "OrderTopic", lambda: None])
def test_only_topics_are_registered(thing: Any) -> None:
    with pytest.raises(TypeError, match="subclass of Topic"):
        register("notes.new")(thing)


def test_a_decorator_without_a_pattern_is_refused() -> None:
    with pytest.raises(TypeError, match=r'write @register\("orders.* above .*NewTopic'):

        @register  # type: ignore[arg-type]
        class NewTopic(Topic):
            pass


def test_a_value_without_an_annotation_is_refused() -> None:
    class NoteTopic(Topic):
        pass

    with pytest.raises(TypeError, match="no annotation for 'pk': add `pk: …`"):
        register("notes.<int:pk>")(NoteTopic)


def test_an_annotation_without_a_value_is_refused() -> None:
    class NoteTopic(Topic):
        pk: int
        shop: str

    with pytest.raises(TypeError, match="annotates 'shop', which its pattern does not fill"):
        register("notes.<int:pk>")(NoteTopic)


def test_a_value_with_a_default_is_refused() -> None:
    class NoteTopic(Topic):
        pk: int = 5

    with pytest.raises(TypeError, match="'pk' comes from the name and has no default"):
        register("notes.<int:pk>")(NoteTopic)


@pytest.mark.parametrize("name", ["history", "can_subscribe", "max_events"])
def test_a_value_cannot_hide_what_every_topic_has(name: str) -> None:
    cls = type("NoteTopic", (Topic,), {"__annotations__": {name: "int"}})
    with pytest.raises(TypeError, match=f"'{name}' is an attribute of every Topic"):
        register(f"notes.<int:{name}>")(cls)


def test_class_variables_and_settings_may_be_annotated() -> None:
    @register("notes.<int:pk>.<slug:shop>")
    class NoteTopic(Topic):
        pk: int
        shop: "Decimal"  # a name that exists for the type checker only
        kind: ClassVar[str] = "note"
        price: "ClassVar[Decimal]"
        max_events: ClassVar[int] = 5

    assert str(NoteTopic(pk=1, shop="x")) == "notes.1.x"  # type: ignore[arg-type]


def test_values_may_be_annotated_in_a_common_base() -> None:
    class ShopTopic(Topic):
        shop: str

    @register("shops.<slug:shop>.<int:pk>")
    class ItemTopic(ShopTopic):
        pk: int

    assert repr(ItemTopic(pk=1, shop="x")) == "ItemTopic(pk=1, shop='x')"
    assert repr(TinyTopic(name="x")) == "TinyTopic(name='x')"


def test_converters_of_the_project_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("attributes", "error", "text"),
    [
        ({"max_events": "5"}, TypeError, "max_events"),
        ({"max_events": True}, TypeError, "max_events"),
        ({"max_events": -1}, TypeError, "0 keeps none"),
        ({"max_age": 86_400}, TypeError, "timedelta"),
        ({"max_age": timedelta(0)}, TypeError, "positive"),
        ({"client_events": "typing"}, TypeError, "such as"),
        ({"client_events": {"ty ping"}}, ValueError, "ty ping"),
        ({"stored_client_events": {5}}, ValueError, "5"),
        ({"client_events": {"x"}, "stored_client_events": ["x"]}, ValueError, "share x"),
    ],
)
def test_a_wrong_class_attribute_is_refused_when_the_class_is_made(
    attributes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        type("NoteTopic", (Topic,), attributes)


def test_client_events_are_frozen() -> None:
    assert OrderTopic.client_events == frozenset({"typing"})
    assert isinstance(OrderTopic.client_events, frozenset)


# Discovery


def test_topics_modules_of_installed_apps_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    unregister(OrderTopic)
    monkeypatch.delitem(sys.modules, "tests.testapp.topics")
    base.autodiscover()
    assert type(resolve("orders.42")).__name__ == "OrderTopic"


def test_public_names_are_those_of_the_package() -> None:
    assert realtime.Topic is Topic
    assert realtime.register is register
    assert realtime.action is action
    assert realtime.user_topic is user_topic


# Authorisation


class Authorisers:
    """Ways to answer."""

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

    def denied(self, user: Any, *event: str) -> bool:
        raise PermissionDenied

    def sync_crash(self, user: Any, *event: str) -> bool:
        raise RuntimeError("broken")

    async def async_crash(self, user: Any, *event: str) -> bool:
        raise RuntimeError("broken")


def topic_with(method: str, **attributes: Any) -> Topic:
    answer = getattr(Authorisers, method)
    attributes = {
        "can_subscribe": answer,
        "can_publish": answer,
        "async_yes": Authorisers.async_yes,
        "async_no": Authorisers.async_no,
        "client_events": {"typing"},
        "stored_client_events": {"comment"},
        **attributes,
    }
    return register("asked")(type("AskedTopic", (Topic,), attributes))()


@pytest.mark.parametrize("method", ["sync_yes", "async_yes", "returned_coroutine", "truthy"])
async def test_an_authoriser_allows(method: str, caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is True
    assert await topic.may_publish(ALICE, "typing") is True
    assert await topic.may_publish(ALICE, "comment") is True
    assert not caplog.records


@pytest.mark.parametrize(
    "method", ["sync_no", "async_no", "returned_coroutine_no", "nothing", "denied"]
)
async def test_an_authoriser_denies(method: str, caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is False
    assert await topic.may_publish(ALICE, "typing") is False
    assert not caplog.records


@pytest.mark.parametrize("method", ["sync_crash", "async_crash"])
async def test_an_exception_in_an_authoriser_denies_and_is_logged(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_with(method)
    assert await topic.may_subscribe(ALICE) is False
    assert await topic.may_publish(ALICE, "typing") is False
    assert [record.name for record in caplog.records] == ["realtime", "realtime"]
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    assert "AskedTopic()" in caplog.text


async def test_a_nameless_authoriser_that_fails_denies(caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_with("sync_yes", can_subscribe=staticmethod(partial(int, "x")))
    assert not await topic.may_subscribe(ALICE)
    assert "which denies" in caplog.text


async def test_nothing_is_allowed_by_default() -> None:
    @register("notes.new")
    class NewTopic(Topic):
        anonymous = True
        client_events = {"typing"}

    for user in (ALICE, NOBODY):
        assert not await NewTopic().may_subscribe(user)
        assert not await NewTopic().may_publish(user, "typing")


async def test_only_client_events_are_asked_about() -> None:
    assert not await topic_with("sync_yes").may_publish(ALICE, "shipped")


async def test_an_anonymous_user_is_refused_without_being_asked_about() -> None:
    topic = topic_with("sync_crash")
    for user in (NOBODY, None):
        assert not await topic.may_subscribe(user)  # type: ignore[arg-type]
        assert not await topic.may_publish(user, "typing")  # type: ignore[arg-type]


async def test_a_topic_may_see_anonymous_users() -> None:
    topic = topic_with("sync_yes", anonymous=True)
    assert await topic.may_subscribe(NOBODY)
    assert await topic.may_publish(NOBODY, "typing")
    assert await PublicTopic(name="news").may_subscribe(NOBODY)


async def test_a_cancelled_authoriser_is_cancelled_not_denied() -> None:
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
async def test_a_sync_authoriser_may_use_the_database_and_return_a_queryset() -> None:
    def can_subscribe(self: Topic, user: Any) -> Any:
        return User.objects.filter(username=user.username)

    topic = topic_with("sync_yes", can_subscribe=can_subscribe)
    await User.objects.acreate(username="alice")
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(BOB)


# User topics


async def test_a_users_topic_is_for_that_user_alone() -> None:
    topic = user_topic(ALICE)
    assert str(topic) == "user.7"
    assert topic == resolve("user.7") == UserTopic(key="7")
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(BOB)
    assert not await topic.may_subscribe(NOBODY)
    assert not await topic.may_publish(ALICE, "typing")


async def test_a_key_with_other_characters_has_a_topic() -> None:
    user = types.SimpleNamespace(pk="a.b/ü~", is_authenticated=True)
    topic = user_topic(user)  # type: ignore[arg-type]
    assert str(topic) == "user.a~2Eb~2F~C3~BC~7E"
    found = resolve(str(topic))
    assert await found.may_subscribe(user)  # type: ignore[arg-type]
    assert not await found.may_subscribe(ALICE)


@pytest.mark.parametrize("user", [NOBODY, User(username="new")])
def test_a_user_without_a_key_has_no_topic(user: Any) -> None:
    with pytest.raises(ValueError, match="no primary key"):
        user_topic(user)


async def test_everyone_is_every_signed_in_user() -> None:
    topic = resolve("everyone")
    assert topic == EveryoneTopic()
    assert await topic.may_subscribe(ALICE)
    assert not await topic.may_subscribe(NOBODY)
    assert not await topic.may_publish(ALICE, "typing")


# Actions


async def test_marked_methods_can_be_called() -> None:
    topic = OrderTopic(pk=42)
    rename, echo = topic.get_action("rename"), topic.get_action("echo")
    assert rename is not None
    assert echo is not None
    assert await run_user_code(rename, ALICE, "x") == {"pk": 42, "name": "x", "by": "alice"}
    assert await run_user_code(echo, ALICE, [1]) == [1]


@pytest.mark.parametrize(
    "name",
    ["not_an_action", "can_subscribe", "may_subscribe", "pk", "__init__", "get_action", "", "x"],
)
def test_nothing_else_can_be_called(name: str) -> None:
    assert OrderTopic(pk=42).get_action(name) is None


def test_actions_are_inherited_until_an_override_is_not_marked() -> None:
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


def test_an_action_is_a_method_with_a_public_name() -> None:
    def _hidden(self: Topic, user: Any, data: Any) -> None: ...

    with pytest.raises(TypeError, match="begins with _"):
        action(_hidden)
    with pytest.raises(TypeError, match="on a method"):
        action("rename")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="on a method"):
        action(classmethod(_hidden))  # type: ignore[type-var]


# Code of the project


async def test_sync_code_runs_in_our_threads_and_async_code_on_the_loop() -> None:
    async def coroutine() -> str:
        return threading.current_thread().name

    assert (await run_user_code(lambda: threading.current_thread().name)).startswith(
        "realtime-user"
    )
    assert await run_user_code(coroutine) == threading.current_thread().name
    assert await run_user_code(partial(coroutine)) == threading.current_thread().name


async def test_what_user_code_raises_is_raised() -> None:
    async def query() -> bool:
        return User.objects.exists()

    with pytest.raises(ZeroDivisionError):
        await run_user_code(lambda: 1 / 0)
    with pytest.raises(SynchronousOnlyOperation):
        await run_user_code(query)
