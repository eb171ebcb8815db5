"""Mistakes in a topic class are reported when it is defined or registered."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial, wraps
from typing import Annotated, Any

import pytest
from django.urls import converters

from realtime.topics import Topic, action, base, isolated, register
from tests.testapp.topics import OrderTopic


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


def declare(**attributes: Any) -> type[Topic]:
    return type("NoteTopic", (Topic,), attributes)


def takes(signature: str) -> Callable[..., Any]:
    function: Callable[..., Any] = eval(f"lambda {signature}: True")
    return function


# Names


@pytest.mark.parametrize(
    ("name", "value", "suggestion"),
    [
        ("max_event", 5, "max_events"),
        ("client_event", {"typing"}, "client_events"),
        ("stored_client_event", {"typing"}, "stored_client_events"),
        ("can_subcribe", takes("self, user"), "can_subscribe"),
        ("can_publlish", takes("self, user, event"), "can_publish"),
        ("anonymus", True, "anonymous"),
    ],
)
def test_a_name_similar_to_a_known_one_is_rejected(name: str, value: Any, suggestion: str) -> None:
    with pytest.raises(
        TypeError, match=rf"NoteTopic\.{name} has no meaning .* mean '{suggestion}'"
    ):
        declare(**{name: value})


def test_other_names_of_the_project_are_allowed() -> None:
    @register("notes.<int:max_event>")
    class NoteTopic(Topic):
        max_event: int
        _client_event = "private"
        title = "not similar to any known name"

        @action
        def can_subscribed(self, user: Any, data: Any) -> None: ...

        def can_comment(self) -> None: ...

    assert NoteTopic(max_event=1).get_action("can_subscribed")


def test_presence_must_be_true_or_false() -> None:
    assert declare(presence=True)
    with pytest.raises(TypeError, match="'yes'; set it to True or False"):
        declare(presence="yes")


@pytest.mark.parametrize(
    ("attributes", "error", "text"),
    [
        ({"max_events": "5"}, TypeError, "max_events"),
        ({"max_events": True}, TypeError, "max_events"),
        ({"max_events": -1}, TypeError, "0 to keep no events"),
        ({"max_age": 86_400}, TypeError, "timedelta"),
        ({"max_age": timedelta(0)}, TypeError, "positive"),
        ({"client_events": "typing"}, TypeError, "such as"),
        ({"client_events": {"ty ping"}}, ValueError, "ty ping"),
        ({"stored_client_events": {5}}, ValueError, "5"),
        ({"client_events": {"x"}, "stored_client_events": ["x"]}, ValueError, "share x"),
    ],
)
def test_an_invalid_class_attribute_is_rejected_when_the_class_is_defined(
    attributes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        type("NoteTopic", (Topic,), attributes)


def test_client_events_are_frozen() -> None:
    assert OrderTopic.client_events == frozenset({"typing"})
    assert isinstance(OrderTopic.client_events, frozenset)


# Signatures


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("can_subscribe", takes("self"), r"write `def can_subscribe\(self, user\)`"),
        ("can_subscribe", takes("self, user, topic"), "missing a required argument: 'topic'"),
        ("can_subscribe", takes("self, *, user"), "called with user"),
        ("can_subscribe", staticmethod(takes("")), r"write `def can_subscribe\(user\)`"),
        ("can_subscribe", classmethod(takes("cls")), r"def can_subscribe\(cls, user\)`"),
        ("can_subscribe", True, "is True, not a method"),
        ("can_publish", takes("self, user"), "called with user and event"),
    ],
)
def test_a_method_with_the_wrong_signature_is_rejected(
    name: str, method: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        declare(**{name: method})


def test_an_action_with_the_wrong_signature_is_rejected() -> None:
    def rename(self: Topic, user: Any) -> None: ...

    with pytest.raises(TypeError, match=r"rename\(\) is called with user and data"):
        declare(rename=action(rename))


def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapper(*args: Any) -> Any:
        return method(*args, "more")

    return wrapper


@pytest.mark.parametrize(
    "method",
    [
        takes("self, user"),
        takes("self, user, more=None"),
        takes("*args"),
        decorated(takes("self, user, more")),
        staticmethod(takes("user")),
        classmethod(takes("cls, user")),
        staticmethod(bool),
        staticmethod(partial(int, "x")),
    ],
)
def test_a_method_that_can_be_called_is_accepted(method: Any) -> None:
    declare(can_subscribe=method)


# Annotations


@pytest.mark.parametrize(
    ("converter", "annotation", "type_name"),
    [
        ("int", str, "int"),
        ("int", "str", "int"),
        ("int", bool, "int"),
        ("int", "uuid.UUID", "int"),
        ("slug", int, "str"),
        ("str", "'int'", "str"),
        ("uuid", "str", "UUID"),
        ("uuid", int, "UUID"),
    ],
)
def test_an_annotation_that_contradicts_its_converter_is_rejected(
    converter: str, annotation: Any, type_name: str
) -> None:
    cls = declare(__annotations__={"key": annotation})
    with pytest.raises(
        TypeError, match=rf"<{converter}:key> returns {type_name}: write `key: {type_name}`"
    ):
        register(f"notes.<{converter}:key>")(cls)
    assert all(owner is not cls for _, owner in base.patterns())


@pytest.mark.parametrize(
    ("converter", "annotation"),
    [
        ("int", int),
        ("int", "int"),
        ("int", float),
        ("int", object),
        ("int", "int | None"),
        ("int", "NoteKey"),
        ("int", "keys.str"),
        ("int", Annotated[str, "for the project's own reasons"]),
        ("str", "str"),
        ("slug", str),
        ("uuid", uuid.UUID),
        ("uuid", "uuid.UUID"),
        ("uuid", "UUID"),
    ],
)
def test_an_annotation_that_can_be_correct_is_accepted(converter: str, annotation: Any) -> None:
    register(f"notes.<{converter}:key>")(declare(__annotations__={"key": annotation}))


def test_a_converter_of_the_project_can_return_any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    class Padded(converters.IntConverter):
        pass

    known = {**converters.get_converters(), "int": Padded()}
    monkeypatch.setattr(base, "get_converters", lambda: known)
    register("notes.<int:key>")(declare(__annotations__={"key": str}))
