"""Settings of the deployed site: save as mysite/deployed.py, and set the environment per machine.

With POSTGRES_HOST the database is PostgreSQL, otherwise SQLite in /var/lib/realtime.
With REDIS_URL the wake-ups go through Redis; the logs stay in the database.
The project's other settings stay as they are: dicts are merged.
"""

import os

from mysite import settings as project
from mysite.settings import *

DEBUG = False
SECRET_KEY = os.environ["SECRET_KEY"]
# ExecStartPost and HEALTHCHECK send requests to 127.0.0.1.
ALLOWED_HOSTS = [*os.environ["ALLOWED_HOSTS"].split(","), "127.0.0.1"]
STATIC_ROOT = os.environ.get("STATIC_ROOT", "/srv/mysite/static")

# nginx terminates TLS and says so; without this, every page would count as a foreign origin.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

# Clients that are not signed in are rate-limited by their address, as nginx reports it. This is
# for nginx on the same machine; use "unix" for socket files, the Docker network for containers.
REALTIME = {"TRUSTED_PROXIES": ["127.0.0.1"], **getattr(project, "REALTIME", {})}
if proxies := os.environ.get("TRUSTED_PROXIES"):
    REALTIME["TRUSTED_PROXIES"] = proxies.split(",")

if host := os.environ.get("POSTGRES_HOST"):
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": host,
        "NAME": os.environ["POSTGRES_DB"],
        "USER": os.environ["POSTGRES_USER"],
        "PASSWORD": os.environ["POSTGRES_PASSWORD"],
    }
else:
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SQLITE", "/var/lib/realtime/db.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
        },
    }
# The project's own settings stay, such as ATOMIC_REQUESTS; OPTIONS only fit the same ENGINE.
default = project.DATABASES["default"]
options = default.get("OPTIONS", {}) if default.get("ENGINE") == database["ENGINE"] else {}
options = {**options, **database.get("OPTIONS", {})}
DATABASES = {**project.DATABASES, "default": {**default, **database, "OPTIONS": options}}

if url := os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            # Redis's pub/sub ignores the number of the database, so the prefix separates two sites.
            # ALLOWED_HOSTS must begin with the same host on all machines of a site.
            "CONFIG": {"hosts": [url], "prefix": ALLOWED_HOSTS[0]},
        }
    }
    CHANNEL_LAYERS = {**getattr(project, "CHANNEL_LAYERS", {}), **CHANNEL_LAYERS}
