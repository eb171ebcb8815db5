"""Measurements; nothing is asserted, because machines differ and are shared."""
