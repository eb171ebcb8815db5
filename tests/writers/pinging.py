"""The test project on a Daphne that logs its pings."""

import logging
from typing import Any

from daphne.ws_protocol import WebSocketProtocol

from realtime.writers import asgi
from tests.consumers.application import application as impatient

logger = logging.getLogger("realtime")
asgi.STALL_SECONDS = 20.0  # a client that waits for pings reads nothing else
ping = WebSocketProtocol._sendAutoPing


def log_and_ping(protocol: Any) -> None:
    transport = protocol.transport
    waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    logger.debug("a ping, behind %d bytes", waiting)
    ping(protocol)


WebSocketProtocol._sendAutoPing = log_and_ping
application = impatient
