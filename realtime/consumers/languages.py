"""The language of a client: the one that ``LocaleMiddleware`` would choose for its request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.http import HttpRequest
from django.http.cookie import parse_cookie
from django.middleware.locale import LocaleMiddleware
from django.utils import translation
from django.utils.module_loading import import_string

from realtime import conf

__all__ = ["activate_language"]


def activate_language(scope: Mapping[str, Any]) -> None:
    """Activate the client's language for the current task, and for what it starts.

    It is the language of the cookie, or else of ``Accept-Language``. A project without
    ``LocaleMiddleware`` keeps its ``LANGUAGE_CODE``, as its pages do.
    """
    if not any(map(_is_locale_middleware, conf.middleware())):
        return
    request = HttpRequest()
    for name, value in scope["headers"]:
        match name.lower():
            case b"cookie":
                request.COOKIES |= parse_cookie(value.decode("latin-1"))
            case b"accept-language":
                request.META["HTTP_ACCEPT_LANGUAGE"] = value.decode("latin-1")
    translation.activate(translation.get_language_from_request(request))


@lru_cache
def _is_locale_middleware(path: str) -> bool:
    found = import_string(path)
    return isinstance(found, type) and issubclass(found, LocaleMiddleware)
