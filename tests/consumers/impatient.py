"""The test project, with less patience for incomplete messages."""

from realtime.writers import daphne
from tests.asgi import application

__all__ = ["application"]

daphne.MESSAGE_SECONDS = 1.0
