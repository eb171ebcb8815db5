"""Settings of the demo: everything on one SQLite file, no other server.

DEMO_DATABASE names another file.
DEMO_DEBUG=0 turns DEBUG off; static files then have hashed names, and collectstatic has to run
before the server starts. DEMO_STATIC names another folder for them.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEMO_DEBUG", "1") != "0"
SECRET_KEY = "known to everyone who reads this file: for the demo alone"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

# The demo's people are signed in by one click, without a password: whoever reaches the site can be
# any of them. With this on, the site starts for the hosts of this machine only (desk/apps.py).
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
        # As manage.py check asks for: several processes read and write this file.
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
STATIC_URL = "/static/"  # the same below /customer/ and /desk/
STATIC_ROOT = os.environ.get("DEMO_STATIC") or ROOT / "staticfiles"
if not DEBUG:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }

# Cookies know no ports: with names of its own the demo signs nobody out of other local sites.
SESSION_COOKIE_NAME = "realtime_demo_session"
CSRF_COOKIE_NAME = "realtime_demo_csrf"
