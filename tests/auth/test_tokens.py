"""Signed tokens: their user, their topics and their expiry."""

import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.test import TestCase, TransactionTestCase, override_settings

from realtime import repeated_errors
from realtime.auth import make_token
from realtime.auth.tokens import SALT, read_token
from realtime.auth.users import Identity, identify
from realtime.exceptions import ProtocolError, UnknownTopic
from tests.testapp.topics import OrderTopic


def scope(**headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


class TokenTests(TestCase):
    user: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.user = User.objects.create_user("ada", password="before")

    def test_a_token_is_valid_for_its_user_for_an_hour(self) -> None:
        grant = read_token(make_token(self.user))
        assert grant is not None
        assert grant.user == self.user
        assert grant.topics is None
        assert 3_500 < grant.expires - time.time() <= 3_600

    def test_a_token_can_be_limited_to_topics(self) -> None:
        grant = read_token(make_token(self.user, topics=[OrderTopic(pk=1), "orders.2"]))
        assert grant is not None
        assert grant.topics == {"orders.1", "orders.2"}
        none = read_token(make_token(self.user, topics=[]))
        assert none is not None
        assert none.topics == frozenset()

    def test_a_token_for_an_unknown_topic_is_refused(self) -> None:
        with pytest.raises(UnknownTopic):
            make_token(self.user, topics=["odrers.1"])

    def test_a_token_for_an_unsaved_user_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no primary key"):
            make_token(User(username="bo"))

    def test_a_token_expires(self) -> None:
        assert read_token(make_token(self.user, expires=timedelta(seconds=-1))) is None

    def test_a_token_ends_with_a_change_of_the_password(self) -> None:
        token = make_token(self.user)
        self.user.set_password("after")
        self.user.save()
        assert read_token(token) is None

    def test_a_token_ends_when_its_user_is_deactivated_or_deleted(self) -> None:
        token, other = make_token(self.user), User.objects.create_user("bo")
        User.objects.filter(pk=self.user.pk).update(is_active=False)
        assert read_token(token) is None
        gone = make_token(other)
        other.delete()
        assert read_token(gone) is None

    def test_a_token_stays_valid_while_its_secret_key_is_a_fallback(self) -> None:
        with override_settings(SECRET_KEY="old"):
            token = make_token(self.user)
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert read_token(token) is not None
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
            assert read_token(token) is None

    def test_invalid_tokens_are_refused(self) -> None:
        token = make_token(self.user)
        payload = signing.loads(token, salt=SALT)
        wrong = [
            "",
            "x",
            token[:-1],
            token + "x",
            "é",
            "a" * 100_000,
            signing.dumps(payload),  # with another salt
            signing.dumps([], salt=SALT),
            signing.dumps({}, salt=SALT),
            signing.dumps({**payload, "e": "soon"}, salt=SALT),
            signing.dumps({**payload, "u": "not a number"}, salt=SALT),
            signing.dumps({**payload, "h": "0" * 16}, salt=SALT),
        ]
        assert [text for text in wrong if read_token(text) is not None] == []


class IdentityTests(TransactionTestCase):
    """Users are looked up in other threads, which see only committed rows."""

    def setUp(self) -> None:
        self.user = User.objects.create_user("ada")

    async def test_a_bearer_header_identifies_the_client(self) -> None:
        token = make_token(self.user, topics=["orders.1"])
        identity = await identify(scope(authorization=f"Bearer {token}"))
        assert identity.user == self.user
        assert identity.allows("orders.1")
        assert not identity.allows("orders.2")
        assert identity.expires is not None

    async def test_a_wrong_token_is_refused_instead_of_anonymous(self) -> None:
        for header in ("Bearer x", "bearer ", f"Bearer {make_token(self.user)}x"):
            with pytest.raises(ProtocolError, match="unauthorized"):
                await identify(scope(authorization=header))
        with pytest.raises(ProtocolError, match="unauthorized"):
            await identify(scope(), "x")

    async def test_other_authorization_schemes_are_ignored(self) -> None:
        identity = await identify(scope(authorization="Basic YTpi"))
        assert identity == Identity(AnonymousUser())
        assert identity.allows("orders.1")

    async def test_a_token_takes_precedence_over_the_session(self) -> None:
        await self.async_client.aforce_login(await User.objects.acreate(username="bo"))
        cookie = f"sessionid={self.async_client.cookies['sessionid'].value}"
        token = make_token(self.user)
        identity = await identify(scope(cookie=cookie, authorization=f"Bearer {token}"))
        assert identity.user == self.user
        assert (await identify(scope(cookie=cookie))).user.username == "bo"

    async def test_the_project_can_identify_a_client(self) -> None:
        seen.clear()
        for path in ("sync_authenticate", "async_authenticate"):
            with override_settings(REALTIME={"AUTHENTICATE": f"{__name__}.{path}"}):
                assert (await identify(scope(authorization="Bearer ada"))).user == self.user
                assert (await identify(scope(), "ada")).user == self.user
                with pytest.raises(ProtocolError):
                    await identify(scope(authorization="Bearer bo"))
                # It is also called without a token; then the session is used.
                assert (await identify(scope())).user == AnonymousUser()
        assert seen == ["ada", "ada", "bo", None] * 2

    @override_settings(REALTIME={"AUTHENTICATE": f"{__name__}.answer"})
    async def test_the_project_can_set_the_expiry_and_the_topics(self) -> None:
        end = time.time() + 60
        answers["x"] = Identity(self.user, ["orders.1"], end)
        identity = await identify(scope(), "x")
        assert (identity.user, identity.expires) == (self.user, end)
        assert identity.allows("orders.1")
        assert not identity.allows("orders.2")
        answers["x"] = Identity(self.user, expires=time.time() - 1)
        with pytest.raises(ProtocolError, match="unauthorized"):
            await identify(scope(), "x")
        answers["x"] = Identity(None)
        with pytest.raises(ProtocolError, match="unauthorized"):
            await identify(scope(), "x")

    @override_settings(REALTIME={"AUTHENTICATE": f"{__name__}.answer"})
    async def test_errors_of_the_projects_function_are_logged_and_refuse_the_client(self) -> None:
        nameless = SimpleNamespace(is_authenticated=True)
        for wrong in ("ada", True, nameless, RuntimeError("the key server is down")):
            answers["x"] = wrong
            repeated_errors._periods.clear()
            with self.assertLogs("realtime", "ERROR"), pytest.raises(ProtocolError) as caught:
                await identify(scope(), "x")
            assert (caught.value.code, caught.value.close_code) == ("unavailable", 4500)
            assert "key server" not in str(caught.value)

    @override_settings(REALTIME={"AUTHENTICATE": f"{__name__}.answer"})
    async def test_the_project_can_deny_with_permission_denied(self) -> None:
        answers["x"] = PermissionDenied("not you")
        with self.assertNoLogs("realtime", "ERROR"), pytest.raises(ProtocolError) as caught:
            await identify(scope(), "x")
        assert (caught.value.code, caught.value.close_code) == ("unauthorized", 4401)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topics": "orders.1"}, "pass a list"),
        ({"expires": "soon"}, "pass seconds since 1970"),
        ({"expires": float("nan")}, "pass seconds since 1970"),
        ({"expires": float("inf")}, "pass seconds since 1970"),
    ],
)
def test_an_identity_refuses_wrong_values(fields: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Identity(None, **fields)


seen: list[str | None] = []
answers: dict[str | None, Any] = {}


def answer(scope: Any, token: str | None) -> Any:
    found = answers.get(token)
    if isinstance(found, Exception):
        raise found
    return found


def sync_authenticate(scope: Any, token: str | None) -> User | None:
    seen.append(token)
    return User.objects.filter(username=token).first()


async def async_authenticate(scope: Any, token: str | None) -> User | None:
    seen.append(token)
    return await User.objects.filter(username=token).afirst()
