"""The test project with a strict content security policy and hashed static file names."""

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE, RUN_FOLDER

ROOT_URLCONF = "tests.admin.urls"
STATIC_ROOT = RUN_FOLDER / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
    },
}
MIDDLEWARE = [*MIDDLEWARE, "tests.admin.urls.strict_policy"]
