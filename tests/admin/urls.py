"""The test project's pages, with static files as `collectstatic` leaves them."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.static import serve

import tests.urls

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


def strict_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Put a policy on every page that has none of its own."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware


urlpatterns = [
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # browsers ask for it
    path("static/<path:path>", serve, {"document_root": settings.STATIC_ROOT}),
    path("", include(tests.urls)),
]
