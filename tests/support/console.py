"""What a browser says in the console by itself while it cannot connect; no page can prevent it."""

import re
from typing import Any

REFUSED = re.compile(r"WebSocket connection to '[^']+/realtime/ws\?v=1' failed")
UNLOADED = re.compile(r"http://[^?]+/realtime/(sse|poll|send)\?")


def is_of_network(message: Any) -> bool:
    """Tell whether a message says that a request of the client's failed."""
    if REFUSED.match(message.text):
        return True
    return "Failed to load" in message.text and bool(UNLOADED.match(message.location["url"]))
