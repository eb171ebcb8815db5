"""The URLs of the test project: none; tests that need some set ROOT_URLCONF."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
