"""For the project's ``urls.py``, where a WSGI server serves it: polling.

``path("realtime/", include("realtime.urls"))``, at the prefix of ``REALTIME["PREFIX"]``.
Behind ``with_realtime`` these paths are answered before Django sees them.
"""

from __future__ import annotations

from django.urls import re_path

from realtime import views

__all__ = ["app_name", "urlpatterns"]

app_name = "realtime"
urlpatterns = [re_path(r"^poll/?$", views.poll, name="poll")]
