"""The examples of docs/names.md and docs/middleware.md do what the pages say."""

import re
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from realtime import publish
from realtime.testing import capture_events
from realtime.topics import isolated, resolve
from tools.environment import ROOT


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


def run(page: str, *names: str) -> dict[str, Any]:
    """Run the examples with these names; return what they define."""
    text = (ROOT / "docs" / page).read_text()
    blocks = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", text, re.DOTALL))
    # The test project has a topic of this name too.
    code = "\n".join(blocks[name] for name in names).replace("orders.<int:pk>", "sold.<int:pk>")
    made: dict[str, Any] = {"__name__": "shop.topics"}
    exec(code, made)
    return made


def test_keys_of_each_kind_are_values_of_topics() -> None:
    made = run("names.md", "patterns")
    key = uuid.UUID(int=7)
    assert resolve(f"documents.{key}").id == key  # type: ignore[attr-defined]
    assert str(made["LineTopic"](order=7, number=2)) == "lines.7.2"


@pytest.mark.parametrize(
    ("email", "name"),
    [
        ("ada@example.org", "ada@example~2Eorg"),
        ("Müller & Söhne", "M~C3~BCller~20~26~20S~C3~B6hne"),
    ],
)
def test_an_escaped_key_belongs_to_its_user(email: str, name: str) -> None:
    topic = run("names.md", "keys")["CustomerTopic"].of(email)
    assert str(topic) == f"customers.{name}"
    assert name in (ROOT / "docs/names.md").read_text()
    assert topic.can_subscribe(SimpleNamespace(email=email))
    assert not topic.can_subscribe(SimpleNamespace(email="bo@example.org"))


@pytest.mark.django_db
def test_a_change_is_published_to_the_object_and_to_its_list() -> None:
    made = run("names.md", "patterns", "list")
    with capture_events() as events:
        made["publish_change"](SimpleNamespace(pk=42, team_id=7, status="paid"))
        publish("sold.42", "other")
    events.assert_published("sold.42", "changed", {"status": "paid"}, count=1)
    events.assert_published("order-list.7", "changed", {"pk": 42, "status": "paid"}, count=1)


def test_an_action_answers_in_the_language_of_its_data() -> None:
    topic = run("middleware.md", "language")["ProfileTopic"](pk=1)
    user = SimpleNamespace(pk=1)
    for language, message in (
        ("de", "Dieses Feld ist zwingend erforderlich."),
        ("en", "This field is required."),
    ):
        with pytest.raises(ValidationError) as caught:
            topic.rename(user, {"name": "", "language": language})
        assert caught.value.messages == [message]
