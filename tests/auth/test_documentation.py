"""The examples of docs/authentication.md work as written."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory, override_settings

from realtime.auth.tokens import read_token
from realtime.auth.users import identify
from realtime.exceptions import ProtocolError

PAGE = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text()
KEY = "a key of 32 bytes, only for tests"

pytestmark = pytest.mark.django_db(transaction=True)


def example(name: str) -> str:
    match = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada")


@pytest.fixture
def module(request: Any) -> Iterator[str]:
    """The path of an example's function, in a module of its own."""
    made = ModuleType("example_authentication")
    exec(example(request.param), vars(made))
    sys.modules[made.__name__] = made
    yield f"{made.__name__}.authenticate"
    del sys.modules[made.__name__]


def scope(token: str | None = None) -> dict[str, Any]:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return {"type": "http", "headers": headers}


@pytest.mark.parametrize("module", ["jwt"], indirect=True)
async def test_the_example_for_json_web_tokens(module: str, ada: User) -> None:
    claims = {"sub": str(ada.pk), "exp": int(time.time()) + 60}
    with override_settings(JWT_KEY=KEY, REALTIME={"AUTHENTICATE": module}):
        identity = await identify(scope(jwt.encode(claims, KEY)))
        assert (identity.user, identity.expires) == (ada, int(claims["exp"]))
        assert (await identify(scope())).user == AnonymousUser()
        for wrong in (
            jwt.encode(claims, "another key of thirty-two bytes!!"),
            jwt.encode({**claims, "exp": time.time() - 60}, KEY),
            jwt.encode({"sub": str(ada.pk)}, KEY),
            jwt.encode({**claims, "sub": "999999"}, KEY),
            jwt.encode({**claims, "sub": "ada"}, KEY),
            jwt.encode({**claims, "sub": "9" * 40}, KEY),
            jwt.encode({**claims, "sub": "\0"}, KEY),
            "x",
        ):
            with pytest.raises(ProtocolError, match="unauthorized"):
                await identify(scope(wrong))


@pytest.mark.parametrize("module", ["drf"], indirect=True)
async def test_the_example_for_django_rest_framework_tokens(module: str, ada: User) -> None:
    from rest_framework.authtoken.models import Token

    token = await Token.objects.acreate(user=ada)
    with override_settings(REALTIME={"AUTHENTICATE": module}):
        assert (await identify(scope(token.key))).user == ada
        assert (await identify(scope())).user == AnonymousUser()
        await User.objects.filter(pk=ada.pk).aupdate(is_active=False)
        for wrong in (token.key, "x"):
            with pytest.raises(ProtocolError, match="unauthorized"):
                await identify(scope(wrong))


def test_the_example_view_returns_a_token(ada: User) -> None:
    match = re.search(r"```python\n(from datetime.*?)```", PAGE, re.DOTALL)
    assert match is not None
    made: dict[str, Any] = {}
    exec(match[1], made)
    request = RequestFactory().get("/")
    request.user = ada
    response = made["token"](request)
    grant = read_token(json.loads(response.content)["token"])
    assert grant is not None
    assert (grant.user, grant.topics) == (ada, {"orders.42"})
