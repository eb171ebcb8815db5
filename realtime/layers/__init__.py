"""A channel layer over the database, which carries wake-ups to the other processes."""

from realtime.layers.database import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]
