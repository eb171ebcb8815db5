"""The console messages of a browser that cannot connect, which no page can prevent."""

import re
from typing import Any

REFUSED = re.compile(r"WebSocket connection to '[^']+/realtime/ws\?v=1' failed")
UNLOADED = re.compile(r"http://[^?]+/realtime/(sse|poll|send)\?")


def is_of_network(message: Any) -> bool:
    """Tell whether a message reports a failed request of the client."""
    if REFUSED.match(message.text):
        return True
    return "Failed to load" in message.text and bool(UNLOADED.match(message.location["url"]))
