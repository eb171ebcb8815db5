"""Signed-in clients, and a parser for the admin pages."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client

MakeClient = Callable[..., Client]


@pytest.fixture
def staff() -> MakeClient:
    """Make clients of staff users that have exactly the given permissions of this app."""

    def make(*permissions: str, name: str = "grace") -> Client:
        user = User.objects.create_user(name, password="secret", is_staff=True)
        ours = Permission.objects.filter(content_type__app_label="realtime")
        user.user_permissions.set(ours.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def publisher(staff: MakeClient) -> Client:
    return staff("publish_event")


@pytest.fixture
def refused_entries() -> Iterator[None]:
    """Let the database refuse log entries of the users that a test has already created."""
    for user in User.objects.all():
        LogEntry.objects.create(user=user, action_flag=ADDITION)
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX one_entry ON django_admin_log (user_id)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX one_entry")


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
    """Return names and values of a page's hidden fields."""
    parser = _Inputs()
    parser.feed(text)
    return parser.found
