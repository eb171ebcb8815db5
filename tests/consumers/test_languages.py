"""An action answers in the language in which LocaleMiddleware would show the client a page."""

from collections.abc import Iterator

import httpx
import pytest
from django.conf import settings

from realtime.consumers import languages
from tests.support.server import Server, connect

GERMAN = "Dieses Feld ist zwingend erforderlich.; Montag"
FRENCH = "Ce champ est obligatoire.; lundi"
ENGLISH = "This field is required.; Monday"
CALL = {"type": "call", "topic": "orders.7", "action": "boom", "data": "invalid translated"}
LOCALE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = {"MIDDLEWARE": LOCALE, "LANGUAGES": [["en", "English"], ["de", "d"], ["fr", "f"]]}
    with Server(tmp_path_factory.mktemp("translated"), settings=options) as running:
        yield running


@pytest.fixture(scope="module")
def untranslated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("untranslated")) as running:
        yield running


def headers(server: Server, accept: str, cookie: str = "") -> dict[str, str]:
    session = server.sign_in()["Cookie"]
    return {"Accept-Language": accept, "Cookie": f"{session}{cookie}"}


async def answers(server: Server, accept: str, cookie: str = "") -> set[str]:
    """Return the messages with which a WebSocket and a POST are answered."""
    sent = headers(server, accept, cookie)
    async with connect(server, additional_headers=sent) as client:
        over_websocket = await client.ask(**CALL)
    url, origin = f"{server.site}/realtime/send", {"Origin": server.site}
    async with httpx.AsyncClient() as http:
        over_http = (await http.post(url, json=CALL, headers={**sent, **origin})).json()
    assert over_websocket["code"] == over_http["code"] == "invalid"
    return {over_websocket["message"], over_http["message"]}


@pytest.mark.parametrize(
    ("accept", "cookie", "message"),
    [
        ("de-AT,de;q=0.9,en;q=0.5", "", GERMAN),
        ("de", "; django_language=fr", FRENCH),
        ("ja", "", ENGLISH),
        ("", "; django_language=xx", ENGLISH),
    ],
)
async def test_the_cookie_or_else_accept_language_decides(
    translated: Server, accept: str, cookie: str, message: str
) -> None:
    assert await answers(translated, accept, cookie) == {message}


async def test_a_project_without_the_middleware_keeps_its_one_language(
    untranslated: Server,
) -> None:
    assert await answers(untranslated, "de", "; django_language=de") == {ENGLISH}


def test_a_subclass_of_the_middleware_counts_and_a_function_does_not() -> None:
    assert languages._is_locale_middleware(f"{__name__}.OwnLocaleMiddleware")
    assert not languages._is_locale_middleware(f"{__name__}.headers")


class OwnLocaleMiddleware(languages.LocaleMiddleware):
    """A project's own variant."""
