"""What the demo answers over HTTP; its WebSockets are in asgi.py.

All of it is there three times: under /, under /customer/ and under /desk/ (browsers.py).
"""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from project.desk import views


class Favicon(RedirectView):
    """Browsers ask for /favicon.ico on pages that name no icon, such as the admin's."""

    def get_redirect_url(self) -> str:
        return static("desk/favicon.svg")


urlpatterns = [
    path("", views.front, name="front"),
    path("persona/", views.persona, name="persona"),
    path("orders.json", views.orders, name="orders"),
    path("orders/place/", views.place, name="place"),
    path("orders/<int:pk>/ship/", views.ship, name="ship"),
    path("orders/<int:pk>/reopen/", views.reopen, name="reopen"),
    path("tell/", views.tell, name="tell"),
    path("tell/everyone/", views.tell_everyone, name="tell_everyone"),
    path("favicon.ico", Favicon.as_view()),
    path("admin/", admin.site.urls),
]
