"""A strict content security policy for every page of the demo."""

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "


@sync_and_async_middleware
def content_security_policy(get_response: Callable) -> Callable:
    """Add the policy to every response, because Django 5.2 has no middleware for it."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            return _with_policy(await get_response(request))
    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            return _with_policy(get_response(request))

    return middleware


def _with_policy(response: HttpResponse) -> HttpResponse:
    if response.status_code < 400:  # Django's error pages under DEBUG have inline styles
        framed = response.headers.get("X-Frame-Options") == "SAMEORIGIN"
        response.headers["Content-Security-Policy"] = POLICY + ("'self'" if framed else "'none'")
    return response
