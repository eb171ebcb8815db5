"""What a topic's class declares wrongly is said when it is made or registered."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Annotated, Any

import pytest
from django.urls import converters

from realtime.topics import Topic, action, base, isolated, register


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
    ("name", "value", "meant"),
    [
        ("max_event", 5, "max_events"),
        ("client_event", {"typing"}, "client_events"),
        ("stored_client_event", {"typing"}, "stored_client_events"),
        ("can_subcribe", takes("self, user"), "can_subscribe"),
        ("can_publlish", takes("self, user, event"), "can_publish"),
        ("anonymus", True, "anonymous"),
    ],
)
def test_a_name_nearly_as_a_known_one_is_refused(name: str, value: Any, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"NoteTopic\.{name} means nothing .* mean '{meant}'"):
        declare(**{name: value})


def test_names_of_the_projects_own_are_let_be() -> None:
    @register("notes.<int:max_event>")
    class NoteTopic(Topic):
        max_event: int
        _client_event = "private"
        title = "unlike"

        @action
        def can_subscribed(self, user: Any, data: Any) -> None: ...

        def can_comment(self) -> None: ...

    assert NoteTopic(max_event=1).get_action("can_subscribed")


def test_presence_is_true_or_false() -> None:
    assert declare(presence=True)
    with pytest.raises(TypeError, match="'yes', neither True nor False"):
        declare(presence="yes")


# Signatures


@pytest.mark.parametrize(
    ("name", "method", "said"),
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
def test_a_method_that_could_not_be_called_is_refused(name: str, method: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        declare(**{name: method})


def test_an_action_that_could_not_be_called_is_refused() -> None:
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
def test_a_method_that_can_be_called_is_let_be(method: Any) -> None:
    declare(can_subscribe=method)


# Annotations


@pytest.mark.parametrize(
    ("converter", "annotation", "makes"),
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
def test_an_annotation_that_contradicts_its_converter_is_refused(
    converter: str, annotation: Any, makes: str
) -> None:
    cls = declare(__annotations__={"key": annotation})
    with pytest.raises(TypeError, match=rf"<{converter}:key> makes {makes}: write `key: {makes}`"):
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
        ("int", Annotated[str, "for reasons of its own"]),
        ("str", "str"),
        ("slug", str),
        ("uuid", uuid.UUID),
        ("uuid", "uuid.UUID"),
        ("uuid", "UUID"),
    ],
)
def test_an_annotation_that_may_be_right_is_let_be(converter: str, annotation: Any) -> None:
    register(f"notes.<{converter}:key>")(declare(__annotations__={"key": annotation}))


def test_a_converter_of_the_project_may_make_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Padded(converters.IntConverter):
        pass

    known = {**converters.get_converters(), "int": Padded()}
    monkeypatch.setattr(base, "get_converters", lambda: known)
    register("notes.<int:key>")(declare(__annotations__={"key": str}))
