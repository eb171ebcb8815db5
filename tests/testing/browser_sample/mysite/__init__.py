"""A project whose tests open its pages in a browser."""
