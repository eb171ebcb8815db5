"""The test project's pages, with the static files that `collectstatic` wrote."""

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
    """Add the policy to every response that has none."""

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
