"""Django settings of the test project.

REALTIME_TEST_DB sets the default database: the URL of a server or the path of a SQLite file.
By default both databases are SQLite files in a folder of this run, or of one of its workers;
REALTIME_TEST_DIR passes the folder to child processes.

REALTIME_TEST_SETTINGS holds additional settings as JSON, such as a store or a layer in Redis.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.databases import database_config


def _run_folder() -> Path:
    # Each worker of a run has its own folder.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    inherited = os.environ.get("REALTIME_TEST_DIR")
    if inherited and os.environ.get("REALTIME_TEST_WORKER", "") == worker:
        return Path(inherited)
    folder = tempfile.mkdtemp(prefix="realtime-tests-")
    os.environ |= {"REALTIME_TEST_DIR": folder, "REALTIME_TEST_WORKER": worker}
    owner = os.getpid()  # a forked child inherits the exit hook, but must not remove the folder

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


RUN_FOLDER = _run_folder()

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "realtime",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
    "rest_framework.authtoken",
    "tests.testapp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
    "default": database_config(
        os.environ.get("REALTIME_TEST_DB") or str(RUN_FOLDER / "default.sqlite3")
    ),
    "other": database_config(str(RUN_FOLDER / "other.sqlite3")),
}

globals().update(json.loads(os.environ.get("REALTIME_TEST_SETTINGS", "{}")))
