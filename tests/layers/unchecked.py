"""The test project without its regular head checks: what arrives came through the layer."""

from realtime.hub import hub

hub.HEAD_CHECK_SECONDS = 3_600.0

from tests.asgi import application  # noqa: E402

__all__ = ["application"]
