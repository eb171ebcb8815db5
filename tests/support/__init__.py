"""Reusable parts of the tests: real servers, a real browser and databases."""
