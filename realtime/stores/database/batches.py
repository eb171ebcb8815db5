"""Batches of rows that one statement can insert.

MariaDB refuses a statement of more than ``max_allowed_packet``, 16 MB by default, and drops the
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["batches"]

T = TypeVar("T")

# Of values in one statement, in which the driver may write each byte as two. Larger statements are
# no faster.
STATEMENT_BYTES = 1_000_000


def batches(rows: Iterable[T], size: Callable[[T], int], limit: int = 10_000) -> list[list[T]]:
    """Split rows, in their order, into batches of about a megabyte.

    Args:
        rows: what to insert.
        size: returns the size of a row in bytes, roughly.
        limit: the most rows of a batch.
    """
    found: list[list[T]] = []
    used = STATEMENT_BYTES
    for row in rows:
        if used >= STATEMENT_BYTES or len(found[-1]) >= limit:
            found.append([])
            used = 0
        found[-1].append(row)
        used += size(row)
    return found
