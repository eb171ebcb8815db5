"""The URLs for a project that a WSGI server serves, which supports polling only.

Include them at the prefix of ``REALTIME["PREFIX"]``:
``path("realtime/", include("realtime.urls"))``.
Behind ``with_realtime`` the requests are answered before they reach Django.
"""

from __future__ import annotations

from django.urls import re_path

from realtime import views

__all__ = ["app_name", "urlpatterns"]

app_name = "realtime"
urlpatterns = [re_path(r"^poll/?$", views.poll, name="poll")]
