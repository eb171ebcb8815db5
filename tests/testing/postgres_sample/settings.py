"""A small project on PostgreSQL; the environment names the database and its options."""

import json
import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["realtime", "django.contrib.auth", "django.contrib.contenttypes", "board"]
DATABASES = {"default": json.loads(os.environ["SAMPLE_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "board.urls"
USE_TZ = True
