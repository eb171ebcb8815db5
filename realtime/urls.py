"""The URLs for a project that a WSGI server serves, which supports polling only.

Include them at the prefix that ``REALTIME["PREFIX"]`` sets:
``path("realtime/", include("realtime.urls"))``.
With ``with_realtime``, these requests are answered before they reach Django's URLs.
"""

from __future__ import annotations

from django.urls import re_path

from realtime import views

__all__ = ["app_name", "urlpatterns"]

app_name = "realtime"
urlpatterns = [re_path(r"^poll/?$", views.poll, name="poll")]
