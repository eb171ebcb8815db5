"""Settings of a project with a worker, as docs/channel-layer.md quotes them."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = ["channels", *INSTALLED_APPS]
ASGI_APPLICATION = "tests.layers.sample.asgi.application"
CHANNEL_LAYERS = {"default": {"BACKEND": "realtime.layers.DatabaseChannelLayer"}}
