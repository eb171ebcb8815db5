"""The test project without regular head checks, so that events arrive only through the layer."""

from realtime.hub import hub

hub.HEAD_CHECK_SECONDS = 3_600.0

from tests.asgi import application  # noqa: E402

__all__ = ["application"]
