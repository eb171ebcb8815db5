"""The settings in docs/redis.md are those that the other tests use."""

import re
from typing import Any

from realtime.stores.redis.clients import MINIMUM
from realtime.stores.redis.store import TIMEOUT_SECONDS, RedisStore
from tests.layers.test_under_the_hub import CORE, PUBSUB, layer_settings
from tests.support.redis import redis_settings
from tools.environment import ROOT

PAGE = (ROOT / "docs/redis.md").read_text()
URL = "redis://127.0.0.1:6379/0"


def blocks() -> list[dict[str, Any]]:
    """Return the settings of each example."""
    found = []
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        names: dict[str, Any] = {}
        exec(code, names)
        names.pop("__builtins__")
        found.append(names)
    return found


def test_the_settings_on_the_page_are_tested() -> None:
    store, cluster, pubsub, core, site = blocks()
    tested = redis_settings(URL)
    tested["REALTIME"]["STORE"].pop("OPTIONS")
    assert (store | pubsub) == tested
    nodes = cluster["REALTIME"]["STORE"]["LOCATION"]
    assert cluster["REALTIME"] == redis_settings(nodes, cluster=True)["REALTIME"]
    assert pubsub == layer_settings(PUBSUB, URL)
    assert core == layer_settings(CORE, URL)
    own = redis_settings(URL, prefix="staging") | layer_settings(PUBSUB, URL, prefix="staging")
    assert site == own


def test_the_store_accepts_the_settings_on_the_page() -> None:
    for names in blocks():
        if "REALTIME" not in names:
            continue
        settings = names["REALTIME"]["STORE"]
        RedisStore(settings["LOCATION"], settings.get("OPTIONS"))
    locations = re.findall(r"^\| `((?:redis|unix)\S*)` \|", PAGE, re.MULTILINE)
    assert len(locations) == 4
    for location in locations:
        RedisStore(location, {"cluster": "," in location})
    assert f"`timeout` | `{TIMEOUT_SECONDS}`" in PAGE
    assert f"Redis {MINIMUM} or newer" in PAGE
