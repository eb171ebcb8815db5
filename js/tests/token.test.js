import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeRequest, flush, makeNetworkClient, subscribed } from "./network.js";
import { comeBack, FakeWebSocket } from "./support.js";

/** Make a token function that returns numbered tokens and counts its calls. */
function makeSource() {
  const source = { calls: 0, token: async () => `t${(source.calls += 1)}` };
  return source;
}

/** Open the newest WebSocket, which then sends its token. */
async function open() {
  /** @type {any} */ (FakeWebSocket.last).onopen?.();
  await flush();
  return FakeWebSocket.last;
}

test("a WebSocket sends its token first and is connected when the server accepts it", async () => {
  const { client, states, advance } = makeNetworkClient({ token: "secret", transport: "websocket" });
  client.subscribe("a");
  await advance(0);
  const socket = await open();
  assert.ok(!socket.url.includes("secret"));
  assert.deepEqual(socket.sent, [{ type: "auth", id: 0, token: "secret" }]);
  socket.welcome({ user: null, topics: [] });
  assert.equal(client.state, "connecting");
  assert.equal(socket.sent.length, 1);
  socket.receive({ type: "ok", id: 0 });
  socket.welcome({ user: "7" });
  assert.deepEqual([client.state, client.userId], ["connected", "7"]);
  assert.equal(socket.lastSent("subscribe").topic, "a");
  assert.deepEqual(states, ["connecting", "connected"]);
});

test("a refused token is final if it is a text", async () => {
  const { client, advance } = makeNetworkClient({ token: "secret" });
  client.subscribe("a");
  await advance(0);
  const socket = await open();
  socket.receive({ type: "error", id: 0, code: "unauthorized", message: "", retry: false });
  assert.equal(client.state, "denied");
  assert.equal(socket.isClosed, true);
  await advance(600_000);
  assert.deepEqual([FakeWebSocket.all.length, FakeRequest.all.length], [1, 0]);
});

test("a refused token is final after the function was called once more", async () => {
  const source = makeSource();
  const { client, clock, advance } = makeNetworkClient({ token: source.token });
  client.subscribe("a");
  await advance(0);
  for (let turn = 1; turn <= 2; turn += 1) {
    const socket = await open();
    assert.equal(socket.lastSent("auth").token, `t${turn}`);
    const count = FakeWebSocket.all.length;
    socket.receive({ type: "error", id: 0, code: "unauthorized", message: "", retry: false });
    assert.equal(client.state, turn === 1 ? "waiting" : "denied");
    while (turn === 1 && FakeWebSocket.all.length === count) await clock.advance(50);
  }
  await advance(600_000);
  assert.deepEqual([source.calls, FakeRequest.all.length], [2, 0]);
});

test("every expired token is replaced", async () => {
  const source = makeSource();
  const { client, clock, advance } = makeNetworkClient({ token: source.token, transport: "websocket" });
  client.subscribe("a");
  await advance(0);
  for (let turn = 1; turn <= 3; turn += 1) {
    const socket = await open();
    assert.equal(socket.lastSent("auth").token, `t${turn}`);
    socket.receive({ type: "ok", id: 0 });
    socket.welcome();
    assert.equal(client.state, "connected");
    await advance(20_000);
    socket.receive({ type: "closing", reason: "signed_out" });
    const count = FakeWebSocket.all.length;
    socket.end(4401);
    while (FakeWebSocket.all.length === count) await clock.advance(50);
  }
});

for (const transport of ["sse", "longpoll", "poll"]) {
  test(`${transport}: each request has the token in a header and not in the URL`, async () => {
    const source = makeSource();
    const { client, advance } = makeNetworkClient({ transport, token: source.token });
    const topic = client.subscribe("a");
    await advance(0);
    await flush();
    if (transport === "sse") await FakeRequest.last.stream();
    else await FakeRequest.last.poll([]);
    await advance(100);
    if (transport === "sse") await FakeRequest.last.stream(subscribed("a", "a0"));
    else await FakeRequest.last.poll([subscribed("a", "a0")]);
    const call = topic.call("one");
    await flush();
    await FakeRequest.last.answer(200, { type: "result", data: 1 });
    assert.equal(await call, 1);
    for (const { url, headers } of FakeRequest.all) {
      assert.equal(headers.get("Authorization"), "Bearer t1");
      assert.ok(!String(url).includes("t1"));
    }
    assert.equal(source.calls, 1);
  });

  test(`${transport}: a refused token is replaced once`, async () => {
    const source = makeSource();
    const { client, advance } = makeNetworkClient({ transport, token: source.token });
    client.subscribe("a");
    await advance(0);
    await flush();
    await FakeRequest.last.refuse(401, "unauthorized");
    assert.equal(client.state, "waiting");
    await advance(500);
    assert.equal(FakeRequest.last.headers.get("Authorization"), "Bearer t2");
    await FakeRequest.last.refuse(401, "unauthorized");
    assert.equal(client.state, "denied");
  });
}

test("a command whose token is refused is sent again with a new one", async () => {
  const source = makeSource();
  const { client, advance } = makeNetworkClient({ transport: "sse", token: source.token });
  const topic = client.subscribe("a");
  await advance(0);
  await flush();
  await FakeRequest.last.stream();
  await advance(100);
  await FakeRequest.last.stream(subscribed("a", "a0"));
  for (const token of ["t2", "t3", "t4"]) {
    const call = topic.call("one");
    await flush();
    await FakeRequest.last.refuse(401, "unauthorized");
    assert.equal(FakeRequest.last.headers.get("Authorization"), `Bearer ${token}`);
    await FakeRequest.last.answer(200, { type: "result", data: token });
    assert.equal(await call, token);
  }
});

test("a token function that fails is called again later", async () => {
  let count = 0;
  const token = async () => {
    count += 1;
    if (count < 3) throw new Error("offline");
    return "late";
  };
  for (const transport of ["websocket", "sse"]) {
    count = 0;
    const { client, advance } = makeNetworkClient({ transport, token });
    client.subscribe("a");
    await advance(0);
    await flush();
    for (let turn = 0; turn < 40 && count < 3; turn += 1) {
      if (transport === "websocket") await open();
      await advance(500);
    }
    assert.equal(count, 3);
    if (transport === "sse") assert.equal(FakeRequest.last.headers.get("Authorization"), "Bearer late");
    else assert.equal(FakeWebSocket.last.lastSent("auth").token, "late");
  }
});

test("the first .user and .everyone start when the page's request began", async () => {
  const { client, clock } = makeNetworkClient({ since: "@5.5", user: "7", transport: "websocket" });
  assert.equal(client.since, "@5.5");
  const user = client.user;
  await clock.advance(0);
  FakeWebSocket.last.welcome();
  assert.equal(FakeWebSocket.last.lastSent("subscribe").since, "@5.5");
  FakeWebSocket.last.subscribed();
  const { everyone } = client;
  await flush();
  assert.deepEqual(
    [FakeWebSocket.last.lastSent("subscribe").topic, FakeWebSocket.last.lastSent("subscribe").since],
    ["everyone", "@5.5"],
  );
  FakeWebSocket.last.subscribed();
  for (const topic of [user, everyone]) topic.unsubscribe();
  client.user.on("*", () => {});
  client.everyone.on("*", () => {});
  await flush();
  for (const { since } of FakeWebSocket.last.allSent("subscribe").slice(-2)) {
    assert.equal(since, undefined);
  }
  FakeWebSocket.last.end();
  await comeBack(clock);
});
