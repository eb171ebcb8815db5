"""The deployed site: save it as mysite/deployed.py; what differs by machine is in the environment.

With POSTGRES_HOST the database is PostgreSQL, otherwise SQLite in /var/lib/realtime.
With REDIS_URL the wake-ups go through Redis; the logs stay in the database.
"""

import os

from mysite.settings import *

DEBUG = False
SECRET_KEY = os.environ["SECRET_KEY"]
# 127.0.0.1 is what asks whether a process answers: ExecStartPost and HEALTHCHECK.
ALLOWED_HOSTS = [*os.environ["ALLOWED_HOSTS"].split(","), "127.0.0.1"]
STATIC_ROOT = os.environ.get("STATIC_ROOT", "/srv/mysite/static")

# nginx ends TLS and says so; without this, pages are refused as being of another origin.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

# Who is not signed in is counted by the address that nginx, here on the same machine, tells of;
# "unix" for socket files, the Docker network for containers.
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
