"""An app whose tests open its pages in a browser."""
