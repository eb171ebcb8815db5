"""The test project with its own ``AUTHENTICATE`` function."""

import time
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied

from realtime.auth import Identity
from tests.asgi import application

__all__ = ["application", "authenticate"]

settings.REALTIME = {"AUTHENTICATE": f"{__name__}.authenticate"}

LIFETIME = 3.0  # seconds


def authenticate(scope: Any, token: str | None) -> Any:
    """Do what the token says."""
    from django.contrib.auth.models import User

    match token:
        case "ends":
            return Identity(User.objects.get(username="ada"), expires=time.time() + LIFETIME)
        case "own":
            user = User.objects.get(username="ada")
            return Identity(user, topics=[f"user.{user.pk}"])
        case "denied":
            raise PermissionDenied
        case "broken":
            raise ValueError("a fault of the project, which no client may read")
    return None
