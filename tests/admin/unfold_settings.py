"""The test project with django-unfold, a theme of the admin that has styles of its own."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = ["realtime", "unfold", *(app for app in INSTALLED_APPS if app != "realtime")]
