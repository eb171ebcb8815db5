"""System checks: what would fail later, found by ``manage.py check``."""
