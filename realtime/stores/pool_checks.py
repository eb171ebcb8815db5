"""Check whether the connection pool of a database is large enough for this app.

The functions read ``settings.DATABASES`` and open no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.db import connections

__all__ = ["check_pool", "is_pooled"]

DEFAULT_SIZE = 4  # of psycopg's ConnectionPool


def is_pooled(settings: Mapping[str, Any]) -> bool:
    """Tell whether closing a connection of this entry of ``DATABASES`` returns it to a pool.

    Backends of other packages, such as ``dj_db_conn_pool.backends.postgresql``, say it in their
    names.
    """
    return bool((settings.get("OPTIONS") or {}).get("pool")) or "pool" in settings["ENGINE"]


def check_pool(alias: str, needed: Mapping[str, int]) -> list[CheckMessage]:
    """Report a pool that is smaller than the number of connections this app can use at once.

    Args:
        alias: the database alias.
        needed: for each purpose, the number of connections.
    """
    pool = (connections.settings[alias].get("OPTIONS") or {}).get("pool")
    if not pool:
        return []
    options = {} if pool is True else pool
    size = options.get("max_size") or options.get("min_size", DEFAULT_SIZE)
    own = sum(needed.values())
    if size > own:
        return []
    listed = ", ".join(f"{count} for {purpose}" for purpose, count in needed.items())
    return [
        Warning(
            f"The connection pool of {alias!r} has at most {size} connections, and a server "
            f"process uses up to {own} of them for this app ({listed}): views and clients can "
            "wait for each other until the pool's timeout.",
            hint=f'Set "pool": {{"max_size": …}} in settings.DATABASES[{alias!r}]["OPTIONS"], to '
            f"{own} plus the number of requests that use the database at the same time.",
            id="realtime.W006",
        )
    ]
