"""What the answers of the Redis store's scripts have in common."""

from __future__ import annotations

from realtime.stores.log_state import Standing

__all__ = ["standing_of"]


def standing_of(topic: str, meta: bytes) -> Standing:
    """Return where a log stands, of the words that are kept of it."""
    epoch, seq, tag, _, floor_seq, floor_tag, floor_time = meta.decode().split()
    return Standing(
        topic, epoch, int(seq), int(tag), int(floor_seq), int(floor_tag), float(floor_time)
    )
