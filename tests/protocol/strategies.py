"""Hypothesis strategies that several test modules share."""

import json

from hypothesis import strategies as st

any_text = st.text(st.characters(), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=20,
)
JSON_PIECES = [
    *"{}[]:,",
    '"',
    "\\",
    '"type"',
    '"ping"',
    "1e999",
    "NaN",
    "\\ud800",
]
almost_json = st.lists(st.sampled_from(JSON_PIECES), max_size=50).map("".join)
FIELDS = ["type", "id", "topic", "since", "last", "event", "data", "action", "token", "other"]


def almost_commands(*values: str) -> st.SearchStrategy[str]:
    """Return JSON objects with the fields of commands; each value is one of these or any JSON."""
    words = ["subscribe", "unsubscribe", "publish", "call", "members", "auth", "ping"]
    field_values = json_values | st.sampled_from([*words, *values])
    return st.dictionaries(st.sampled_from(FIELDS), field_values).map(json.dumps)
