"""Settings of the demo, which needs only one SQLite file and no other server.

Environment variables:
    DEMO_DATABASE: another path for the SQLite file.
    DEMO_DEBUG: 0 turns DEBUG off. Static files then have hashed names, and collectstatic must run
        before the server starts.
    DEMO_STATIC: another folder for the collected static files.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEMO_DEBUG", "1") != "0"
SECRET_KEY = "for the demo only: everyone can read this file"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

# A visitor can sign in as any persona with one click and without a password. Therefore the site
# starts only if ALLOWED_HOSTS has no host but this machine (desk/apps.py).
DEMO_PERSONAS = True
DEMO_BROWSERS = ("customer", "desk")

INSTALLED_APPS = [
    "realtime",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "project.desk",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "project.desk.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DEMO_DATABASE") or ROOT / "demo.sqlite3",
        # The settings that manage.py check recommends if several processes use the file.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"  # an absolute path, so /customer/ and /desk/ share it
STATIC_ROOT = os.environ.get("DEMO_STATIC") or ROOT / "staticfiles"
if not DEBUG:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }

# Cookies are shared by all ports of a host. These names do not clash with other local sites.
SESSION_COOKIE_NAME = "realtime_demo_session"
CSRF_COOKIE_NAME = "realtime_demo_csrf"
