"""Settings of the deployed site: save as mysite/deployed.py, and set the environment per machine.

With POSTGRES_HOST the database is PostgreSQL, otherwise SQLite in /var/lib/realtime.
With REDIS_URL the wake-ups go through Redis; the logs stay in the database.
"""

import os

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
REALTIME = {"TRUSTED_PROXIES": os.environ.get("TRUSTED_PROXIES", "127.0.0.1").split(",")}

if host := os.environ.get("POSTGRES_HOST"):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": host,
            "NAME": os.environ["POSTGRES_DB"],
            "USER": os.environ["POSTGRES_USER"],
            "PASSWORD": os.environ["POSTGRES_PASSWORD"],
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SQLITE", "/var/lib/realtime/db.sqlite3"),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                "timeout": 20,
            },
        }
    }

if url := os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [url]},
        }
    }
