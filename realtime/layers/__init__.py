"""Channel layers: how a wake-up reaches the other processes."""
