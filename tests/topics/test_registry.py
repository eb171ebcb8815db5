"""The registry: which class a name belongs to, and which classes can be registered."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from realtime.exceptions import InvalidTopicName, UnknownTopic
from realtime.topics import (
    EveryoneTopic,
    Topic,
    base,
    find,
    isolated,
    register,
    resolve,
    unregister,
)
from tests.testapp.topics import OrderTopic, TinyTopic

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


# Which class a name belongs to


def test_an_unknown_name_lists_the_nearest_patterns() -> None:
    with pytest.raises(UnknownTopic) as caught:
        resolve("order.42")
    assert caught.value.nearest[0] == "orders.<int:pk>"
    assert find("order.42") is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("orders.abc", "'abc' is not a valid <int:pk>"),
        ("orders.007", "'007' is not a valid <int:pk>; write '7'"),
        ("suite-~.9", "'~' is not a valid <slug:name>"),
        ("suite-.9", ""),
        ("suite.9", ""),
        ("order.42", ""),
        ("orders.1.2", ""),
    ],
)
def test_an_invalid_value_in_a_name_is_reported(name: str, reason: str) -> None:
    @register("suite-<slug:name>.<int:pk>")
    class SuiteTopic(Topic):
        name: str
        pk: int

    with pytest.raises(UnknownTopic) as caught:
        resolve(name)
    assert caught.value.reason == reason


def test_the_error_for_a_key_with_dots_names_escape_key_and_the_escaped_name() -> None:
    @register("customers.<str:email>")
    class CustomerTopic(Topic):
        email: str

    with pytest.raises(UnknownTopic, match=r"'customers\.ada@shop~2Eexample', with .*escape_key"):
        resolve("customers.ada@shop.example")


@pytest.mark.parametrize("name", ["orders.007", "orders.x", "orders", "orders.1.2", "Orders.1"])
def test_a_similar_name_is_unknown(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_the_most_specific_pattern_wins_in_any_order_of_registration(reverse: bool) -> None:
    class Named(Topic):
        name: str

    class Unnamed(Topic):
        pass

    table = {
        "notes.new": type("New", (Unnamed,), {}),
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

    with pytest.raises(InvalidTopicName, match=r"more specific pattern 'notes\.new'"):
        NoteTopic(name="new")
    assert str(NoteTopic(name="old")) == "notes.old"
    assert str(NewTopic()) == "notes.new"


def test_patterns_are_listed_with_their_classes_more_specific_first() -> None:
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


# Which classes can be registered


def test_a_class_can_be_registered_only_once() -> None:
    with pytest.raises(TypeError, match=r"already registered as 'orders\.<int:pk>'"):
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
def test_only_topic_classes_can_be_registered(thing: Any) -> None:
    with pytest.raises(TypeError, match="subclass of Topic"):
        register("notes.new")(thing)


def test_a_value_without_an_annotation_is_rejected() -> None:
    class NoteTopic(Topic):
        pass

    with pytest.raises(TypeError, match="no annotation for 'pk': add `pk: …`"):
        register("notes.<int:pk>")(NoteTopic)


def test_an_annotation_without_a_value_is_rejected() -> None:
    class NoteTopic(Topic):
        pk: int
        shop: str

    with pytest.raises(TypeError, match="annotates 'shop', which its pattern does not fill"):
        register("notes.<int:pk>")(NoteTopic)


def test_a_value_with_a_default_is_rejected() -> None:
    class NoteTopic(Topic):
        pk: int = 5

    with pytest.raises(TypeError, match="'pk' comes from the name and has no default"):
        register("notes.<int:pk>")(NoteTopic)


@pytest.mark.parametrize("name", ["history", "can_subscribe", "max_events"])
def test_a_value_cannot_have_the_name_of_a_topic_attribute(name: str) -> None:
    cls = type("NoteTopic", (Topic,), {"__annotations__": {name: "int"}})
    with pytest.raises(TypeError, match=f"'{name}' is an attribute of every Topic"):
        register(f"notes.<int:{name}>")(cls)


def test_class_variables_and_settings_can_be_annotated() -> None:
    @register("notes.<int:pk>.<slug:shop>")
    class NoteTopic(Topic):
        pk: int
        shop: "Decimal"  # imported for the type checker only
        kind: ClassVar[str] = "note"
        price: "ClassVar[Decimal]"
        max_events: ClassVar[int] = 5

    assert str(NoteTopic(pk=1, shop="x")) == "notes.1.x"  # type: ignore[arg-type]


def test_values_can_be_annotated_in_a_common_base_class() -> None:
    class ShopTopic(Topic):
        shop: str

    @register("shops.<slug:shop>.<int:pk>")
    class ItemTopic(ShopTopic):
        pk: int

    assert repr(ItemTopic(pk=1, shop="x")) == "ItemTopic(pk=1, shop='x')"
    assert repr(TinyTopic(name="x")) == "TinyTopic(name='x')"
