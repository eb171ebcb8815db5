"""The template tags of ``{% load realtime %}``."""
