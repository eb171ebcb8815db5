"""The test project on a node that expires soon, and whose clock can be wrong."""

import os
import time

_real = time.time
_offset = float(os.environ.get("REALTIME_TEST_CLOCK_OFFSET", "0"))
time.time = lambda: _real() + _offset

from realtime import nodes  # noqa: E402 - the clock was wrong before
from realtime.hub import jobs, member_writer  # noqa: E402

nodes.BEAT_SECONDS = jobs.BEAT_SECONDS = 0.5
nodes.EXPIRY_SECONDS = 3.0
jobs.BEAT_RETRY_SECONDS = 0.25
member_writer.STREAM_HOLD_SECONDS = 1.0

from tests.asgi import application as application  # noqa: E402
