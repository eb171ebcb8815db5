"""The client's objects inside Vue and Alpine, in a real Chromium."""

from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.js.support import publish_event, wait_for, wait_for_state
from tests.support.services import require_node_modules

VUE = "vue/dist/vue.global.prod.js"
ALPINE = {
    "alpine": "alpinejs/dist/cdn.min.js",
    "alpine-csp": "@alpinejs/csp/dist/cdn.min.js",  # for content security policies without eval
}


@pytest.fixture
def open_page(open_window, shared_server) -> Callable:
    """Open a page with this markup and a library of js/node_modules."""
    require_node_modules()

    def open_page(topic: str, library: str, html: str):
        query = f"?library={quote(library)}&html={quote(html)}"
        return open_window(shared_server, f"/framework/{topic}/{query}")

    return open_page


def test_vue_keeps_the_client_and_its_topics_in_reactive_state(
    open_page, shared_server, topic
) -> None:
    page = open_page(topic, VUE, '<div id="app"></div>')
    page.evaluate("""() => {
      const app = Vue.createApp({
        setup() {
          const topic = Vue.ref(follow());
          const all = Vue.reactive({topics: [follow()], client: realtime});
          window.remove = topic.value.on("tick", data => heard.push(["ref", data]));
          all.topics[0].on("tick", data => heard.push(["list", data]));
          all.topics[0].onMembers(() => {});
          all.client.addEventListener("statechange", ({state}) => heard.push([state]));
          window.vue = {topic, all, nested: Vue.reactive(new Proxy(realtime, {}))};
          return {topic, all};
        },
        template: `{{ topic.name }} {{ topic.members }} {{ all.client.transport }}`,
      });
      app.mount("#app");
    }""")
    assert page.inner_text("#app").split() == [topic, "websocket"]
    wait_for_state(page, "connected")
    publish_event(shared_server, topic, "tick", 1)
    wait_for(page, "heard.length >= 4")
    assert page.evaluate("heard") == [["connecting"], ["connected"], ["ref", "1"], ["list", "1"]]
    code = "vue.topic.value.call('none').catch(error => error.code)"
    assert page.evaluate(code) == "unknown_action"
    page.evaluate("{ remove(); vue.nested.addEventListener('statechange', () => {}); }")
    publish_event(shared_server, topic, "tick", 2)
    wait_for(page, "heard.length >= 5")
    page.evaluate("{ vue.all.topics[0].unsubscribe(); vue.all.client.close(); }")
    wait_for(page, "heard.length >= 6")
    assert page.evaluate("heard.slice(4)") == [["list", "2"], ["closed"]]
    assert page.evaluate("[vue.nested.state, vue.all.client.state]") == ["closed", "closed"]


@pytest.mark.parametrize("build", ALPINE)
def test_alpine_keeps_the_client_and_its_topics_in_x_data(
    open_page, shared_server, topic, build
) -> None:
    name = f"{topic}-{build}"
    html = """
      <div x-data="page" x-init="order.on('tick', add)">
        <p x-init="stop = order.on('tick', add)"></p>
        <b id="name" x-text="order.name"></b>
        <button id="stop" @click="stop()">stop</button>
        <button id="again" @click="order.on('tick', add)">again</button>
        <p x-data="topic" x-init="on('tick', add)"><i id="own" x-text="name"></i></p>
        <p x-data="client"><i id="transport" x-text="transport"></i></p>
      </div>"""
    page = open_page(name, ALPINE[build], html)
    wait_for_state(page, "connected")
    publish_event(shared_server, name, "tick", 1)
    wait_for(page, "heard.length >= 3")
    assert [page.inner_text(one) for one in ("#name", "#own")] == [name, name]
    assert page.inner_text("#transport") == "websocket"
    page.click("#stop")
    publish_event(shared_server, name, "tick", 2)
    wait_for(page, "heard.length >= 5")
    page.click("#again")
    publish_event(shared_server, name, "tick", 3)
    wait_for(page, "heard.length >= 8")
    assert page.evaluate("heard") == ["1", "1", "1", "2", "2", "3", "3", "3"]
