"""The ASGI application."""

import os

from django.core.asgi import get_asgi_application

from realtime.asgi import with_realtime

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = with_realtime(get_asgi_application())
