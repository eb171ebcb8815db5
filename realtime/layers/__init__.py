"""Channel layers: how a wake-up reaches the other processes."""

from realtime.layers.database import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]
