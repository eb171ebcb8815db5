"""Users of the admin, and what the tests read from its pages."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

MakeClient = Callable[..., Client]


@pytest.fixture
def staff() -> MakeClient:
    """Return a client of a member of staff who has the named permissions of this app."""

    def make(*permissions: str, name: str = "grace") -> Client:
        user = User.objects.create_user(name, password="secret", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="realtime")
        user.user_permissions.set(found.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def publisher(staff: MakeClient) -> Client:
    return staff("publish_event")


class _Inputs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        name = values.get("name")
        if tag == "input" and values.get("type") == "hidden" and name:
            self.found[name] = values.get("value") or ""


def hidden(text: str) -> dict[str, str]:
    """Return the hidden fields of a page."""
    parser = _Inputs()
    parser.feed(text)
    return parser.found
