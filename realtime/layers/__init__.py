"""Channel layers: the way by which wake-ups reach the other processes."""

from realtime.layers.database import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]
