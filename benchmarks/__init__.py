"""What things cost here; nothing is asserted, since machines differ and are shared."""
