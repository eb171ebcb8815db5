"""The user of a session, which is looked up without changing the session."""

from datetime import timedelta
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, get_user_model, login
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.test import override_settings
from django.utils import timezone

from realtime.auth.users import user_of

pytestmark = pytest.mark.django_db(transaction=True)

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
DATABASE = "django.contrib.sessions.backends.db"


class OtherBackend(ModelBackend):
    """A second way to sign in."""


class BrokenBackend(ModelBackend):
    def get_user(self, user_id: Any) -> Any:
        raise RuntimeError("the directory is down")


def sign_in(backend: str = MODEL_BACKEND, **changes: Any) -> str:
    """Sign in a new user, as Django does; return the session's key."""
    user = get_user_model().objects.create_user("ada", password="secret")
    request = HttpRequest()
    request.session = import_module(django_settings.SESSION_ENGINE).SessionStore()
    login(request, user, backend)
    for key, value in changes.items():
        if value is None:
            del request.session[key]
        else:
            request.session[key] = value
    request.session.save()
    assert request.session.session_key is not None
    return request.session.session_key


async def who(*cookies: str | bytes) -> Any:
    """Return the user of a connection with these Cookie headers."""
    values = [cookie.encode() if isinstance(cookie, str) else cookie for cookie in cookies]
    return await user_of({"type": "websocket", "headers": [(b"cookie", v) for v in values]})


async def who_has(key: str) -> Any:
    return await who(f"sessionid={key}")


asign_in = sync_to_async(sign_in)


async def test_a_valid_session_identifies_its_user() -> None:
    key = await asign_in()
    user = await who_has(key)
    assert user.get_username() == "ada"
    assert user.is_authenticated
    assert (await who(f"theme=dark; sessionid={key}; x=y")).get_username() == "ada"
    assert (await who("theme=dark", f"sessionid={key}")).get_username() == "ada"


@pytest.mark.parametrize(
    "cookie",
    [
        "", "sessionid=", "sessionid", "sessionid=nobody", "sessionid=" + "x" * 5_000, "other=1",
        "sessionid=../../etc/passwd", "sessionid=a b", b"sessionid=\xff\xfe\x00", b"\xff=\xff",
        ";;;=;", "sessionid=%00", r'sessionid="\000abc"', r'sessionid="\351\001"',
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
async def test_a_missing_or_invalid_cookie_is_anonymous(
    cookie: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await asign_in()
    assert isinstance(await who(cookie), AnonymousUser)
    assert isinstance(await user_of({"headers": []}), AnonymousUser)
    assert not [record for record in caplog.records if record.name == "realtime"]


async def test_a_key_with_odd_characters_is_no_session_and_is_not_looked_up() -> None:
    with patch("realtime.auth.users._user_of_session", side_effect=AssertionError):
        for cookie in (r'sessionid="\000abc"', r'sessionid="a\011b"', b"sessionid=\xe9"):
            assert isinstance(await who(cookie), AnonymousUser)


@override_settings(SESSION_COOKIE_NAME="kunde")
async def test_the_name_of_the_cookie_is_djangos_setting() -> None:
    key = await asign_in()
    assert (await who(f"kunde={key}")).is_authenticated
    assert not (await who(f"sessionid={key}")).is_authenticated


async def test_an_expired_session_is_anonymous() -> None:
    key = await asign_in()
    await Session.objects.aupdate(expire_date=timezone.now() - timedelta(seconds=1))
    assert isinstance(await who_has(key), AnonymousUser)


async def test_a_session_that_signed_out_is_anonymous() -> None:
    key = await asign_in()
    await Session.objects.filter(session_key=key).adelete()
    assert isinstance(await who_has(key), AnonymousUser)


async def test_a_changed_password_ends_the_other_sessions_and_leaves_their_rows() -> None:
    key = await asign_in()
    user = await get_user_model().objects.aget(username="ada")
    user.set_password("another")
    await user.asave()
    before = await Session.objects.aget(session_key=key)
    assert isinstance(await who_has(key), AnonymousUser)
    after = await Session.objects.aget(session_key=key)
    assert after.session_data == before.session_data


async def test_a_session_without_a_hash_or_with_a_strange_one_is_anonymous() -> None:
    assert isinstance(await who_has(await asign_in(_auth_user_hash=None)), AnonymousUser)
    await get_user_model().objects.all().adelete()
    assert isinstance(await who_has(await asign_in(_auth_user_hash="")), AnonymousUser)


@pytest.mark.parametrize("strange", [7, ["x"], "hásh", True])
async def test_a_hash_of_another_type_is_anonymous(strange: Any) -> None:
    assert isinstance(await who_has(await asign_in(_auth_user_hash=strange)), AnonymousUser)


async def test_a_session_of_an_old_secret_key_is_accepted_and_not_written_to() -> None:
    key = await asign_in()
    before = await Session.objects.aget(session_key=key)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[django_settings.SECRET_KEY]):
        assert (await who_has(key)).get_username() == "ada"
    with override_settings(SECRET_KEY="new"):
        assert isinstance(await who_has(key), AnonymousUser)
    after = await Session.objects.aget(session_key=key)
    assert (after.session_data, after.expire_date) == (before.session_data, before.expire_date)


async def test_a_session_of_a_removed_backend_is_anonymous() -> None:
    other = f"{__name__}.OtherBackend"
    with override_settings(AUTHENTICATION_BACKENDS=[MODEL_BACKEND, other]):
        key = await asign_in(other)
        assert (await who_has(key)).is_authenticated
    assert isinstance(await who_has(key), AnonymousUser)


@pytest.mark.parametrize("field", [SESSION_KEY, BACKEND_SESSION_KEY])
async def test_a_session_that_lacks_a_field_is_anonymous(field: str) -> None:
    assert isinstance(await who_has(await asign_in(**{field: None})), AnonymousUser)


@pytest.mark.parametrize("strange", ["seven", "", "9" * 30, ["7"], {"7": 7}])
async def test_a_session_with_a_strange_user_is_anonymous(strange: Any) -> None:
    assert isinstance(await who_has(await asign_in(**{SESSION_KEY: strange})), AnonymousUser)


@pytest.mark.parametrize("strange", [7, ["x"], {"a": 1}])
async def test_a_session_with_a_strange_backend_is_anonymous(strange: Any) -> None:
    assert isinstance(
        await who_has(await asign_in(**{BACKEND_SESSION_KEY: strange})), AnonymousUser
    )


async def test_a_deleted_or_inactive_user_is_anonymous() -> None:
    key = await asign_in()
    await get_user_model().objects.aupdate(is_active=False)
    assert isinstance(await who_has(key), AnonymousUser)
    await get_user_model().objects.aupdate(is_active=True)
    assert (await who_has(key)).is_authenticated
    await get_user_model().objects.all().adelete()
    assert isinstance(await who_has(key), AnonymousUser)


@pytest.mark.parametrize("engine", ["signed_cookies", "cached_db", "cache", "file"])
async def test_every_session_engine_works(engine: str) -> None:
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        key = await asign_in()
        assert (await who_has(key)).get_username() == "ada"
        assert isinstance(await who_has("garbage"), AnonymousUser)
        assert isinstance(await who_has(key[:-2]), AnonymousUser)


async def test_an_error_of_the_backend_is_raised() -> None:
    broken = f"{__name__}.BrokenBackend"
    with override_settings(AUTHENTICATION_BACKENDS=[broken]):
        key = await asign_in(broken)
        with pytest.raises(RuntimeError, match="the directory is down"):
            await who_has(key)


async def test_without_sessions_every_client_is_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    key = await asign_in()
    monkeypatch.setattr(apps, "is_installed", lambda name: name == "django.contrib.auth")
    assert isinstance(await who_has(key), AnonymousUser)


async def test_without_auth_there_is_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    assert await who("sessionid=x") is None
