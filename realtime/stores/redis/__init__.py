"""The store in Redis."""

from realtime.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
