"""Other people's clients of event streams, in a real Chromium, on a network that cuts streams."""

import subprocess
from collections import Counter
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

from tests.js.proxy import Proxy, Verdict
from tests.js.support import publish_event, wait_for
from tests.support.services import require_node_modules
from tests.support.waiting import wait_until
from tests.testapp.pages import HTMX

TEXT = "<img id=injected src=x>"
CLIENTS = ["EventSource", "event-source-polyfill", "fetch-event-source", "htmx"]

FOLLOW = """topic => {
  const url = client => `/realtime/sse?topic=${topic}&client=${client}`;
  const follow = (client, source) => { source.onmessage = ({data}) => hear(client, data); };
  window.received = {};
  const hear = (client, text) => {
    const frame = JSON.parse(text);
    if (frame.type === "subscribed") received[client] ??= [];
    if (frame.recovered === false || frame.type === "reset") received[client].push("reset");
    if (frame.type === "event") received[client].push(frame.data);
  };
  follow("EventSource", new EventSource(url("EventSource")));
  follow("event-source-polyfill", new EventSourcePolyfill(url("event-source-polyfill")));
  fetchEventSource.fetchEventSource(url("fetch-event-source"), {
    openWhenHidden: true,
    onmessage: ({data}) => data && hear("fetch-event-source", data),
    onclose() { throw new Error("the stream ended"); },  // otherwise it does not come back
  });
  document.addEventListener("htmx:sseBeforeMessage", ({detail}) => hear("htmx", detail.data));
  document.body.innerHTML =
    `<div hx-ext="sse" sse-connect="${url("htmx")}"><p id="swap" sse-swap="message"></p></div>`;
  window.swapped = [];  // each state of the element: its text, and how many elements it contains
  const note = () => swapped.push([swap.textContent, swap.children.length]);
  new MutationObserver(note).observe(swap, {childList: true, subtree: true});
  htmx.process(document.body);
}"""


def bundle_of_fetch_event_source() -> str:
    """Return a script that sets `fetchEventSource`."""
    modules = require_node_modules()
    entry = modules / "@microsoft/fetch-event-source/lib/esm/index.js"
    options = ["--bundle", "--format=iife", "--global-name=fetchEventSource"]
    command = [modules / ".bin/esbuild", entry, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_each_client_receives_every_event_once_though_its_streams_are_cut_and_the_server_is_away(
    open_window, shared_server, topic, expected_errors
) -> None:
    # What the clients log about broken streams, and htmx about the page's style policy.
    expected_errors += ["Failed to load", "htmx:sseError", "Applying inline style", "[object Event]"]
    modules = require_node_modules()
    streams: Counter[str] = Counter()

    def rule(method: str, path: str) -> Verdict:
        """Cut every stream, and answer every second request as while the server is away."""
        url = urlsplit(path)
        if url.path != "/realtime/sse":
            return "pass"
        (client,) = parse_qs(url.query)["client"]
        streams[client] += 1
        return "cut" if streams[client] % 2 else "away"

    with Proxy(shared_server.port, rule) as proxy:
        library = quote("event-source-polyfill/src/eventsource.min.js")
        path = f"/framework/{topic}/?library={library}&html="
        page = open_window(SimpleNamespace(port=proxy.port), path)
        page.evaluate((HTMX / "htmx-2.min.js").read_text())
        page.evaluate((modules / "htmx-ext-sse/dist/sse.min.js").read_text())
        page.evaluate(bundle_of_fetch_event_source() + ";window.fetchEventSource = fetchEventSource")
        page.evaluate(FOLLOW, topic)
        wait_for(page, f"Object.keys(received).length === {len(CLIENTS)}")  # all are subscribed
        expected = []
        for number in range(3):
            expected.append(f"{TEXT}{number}")
            publish_event(shared_server, topic, "said", quote(expected[-1]))
            before = Counter(streams)
            # Two requests later: one was answered as while the server is away.
            wait_until(
                lambda before=before: all(streams[one] >= before[one] + 2 for one in CLIENTS),
                "every client has reconnected",
                timeout=30,
            )
        wait_for(page, "Object.values(received).every(all => all.length >= 3)", timeout=30)
        assert any("&lastEventId=" in path for _, path in proxy.requests)  # event-source-polyfill
        assert page.evaluate("received") == dict.fromkeys(CLIENTS, expected)
        swapped = page.evaluate("swapped")
        assert any(r"\u003cimg id=injected src=x\u003e0" in text for text, _ in swapped)
        assert {count for _, count in swapped} == {0}
