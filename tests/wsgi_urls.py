"""The URLs of a project that a WSGI server serves."""

from django.urls import include, path

urlpatterns = [path("realtime/", include("realtime.urls"))]
