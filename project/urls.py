"""The demo's HTTP URLs; its WebSockets are in asgi.py.

All of them are served below /, below /customer/ and below /desk/ (browsers.py).
"""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from project.desk import views


class Favicon(RedirectView):
    """Answer /favicon.ico, which browsers request on pages without an icon, such as the admin."""

    def get_redirect_url(self) -> str:
        return static("desk/favicon.svg")


urlpatterns = [
    path("", views.front, name="front"),
    path("persona/", views.persona, name="persona"),
    path("orders.json", views.orders, name="orders"),
    path("orders/place/", views.place, name="place"),
    path("orders/<int:pk>/ship/", views.ship, name="ship"),
    path("orders/<int:pk>/reopen/", views.reopen, name="reopen"),
    path("notify/", views.notify, name="notify"),
    path("notify/everyone/", views.notify_everyone, name="notify_everyone"),
    path("favicon.ico", Favicon.as_view()),
    path("admin/", admin.site.urls),
]
