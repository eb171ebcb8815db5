"""The transports, as Channels consumers."""
