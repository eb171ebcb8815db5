import assert from "node:assert/strict";
import { test } from "node:test";
import { compose, isCursor } from "../src/cursors.js";
import { FakeRequest, flush, makeFollowing, makeNetworkClient, subscribed } from "./network.js";

/** @param {string} topic @param {number} seq @param {string} [epoch] */
const cursor = (topic, seq, epoch = "Zk3h0aVc") => `${epoch}.${seq}.0000a0f${topic.length % 10}`;

/** @param {number} seq @param {string} [topic] */
function event(seq, topic = "a") {
  return { type: "event", topic, event: "tick", data: seq, cursor: cursor(topic, seq), seq };
}

const cursorHeader = (/** @type {FakeRequest} */ request) => request.headers.get("Last-Event-ID");

test("a composite cursor is written as the server reads it", () => {
  // The same as in tests/protocol/test_cursors.py.
  const cursors = /** @type {[string, string][]} */ ([
    ["orders.42", "Zk3h0aVc.17.0a1b2c3d"],
    ["public.news", "another-life_1.0.ffffffff"],
    ["orders.43", "Zk3h0aVc.123456789012345678.00000000"],
  ]);
  assert.equal(compose(cursors), "Zk3h0aVc~W0JPXwChssPQ17.Pixl8AAAAAAA123456789012345678!another-life_1~fD08zA_____w0");
});

test("entries that belong to no topic are copied from the previous composite cursor", () => {
  const cursors = /** @type {[string, string][]} */ ([["orders.42", "Zk3h0aVc.17.0a1b2c3d"]]);
  const previous = "Zk3h0aVc~W0JPXwAAAAAA9.AAAAAACCCCCC5!other~BBBBBBDDDDDD7";
  const expected = "Zk3h0aVc~W0JPXwChssPQ17.AAAAAACCCCCC5!other~BBBBBBDDDDDD7";
  assert.equal(compose(cursors, previous, ["orders.42"]), expected);
  // A topic that starts again does not keep its old entry.
  assert.equal(compose([], "Zk3h0aVc~W0JPXwAAAAAA9.AAAAAACCCCCC5", ["orders.42"]), "Zk3h0aVc~AAAAAACCCCCC5");
  assert.equal(compose(cursors, ""), "Zk3h0aVc~W0JPXwChssPQ17");
});

test("only whole cursors go into a composite cursor", () => {
  for (const other of [undefined, null, "", "@5.5", "?", "a.1", "a.01.00000000", "a~b.1.00000000", "a.1.0000000G"]) {
    assert.equal(isCursor(other), false);
  }
});

for (const transport of ["sse", "longpoll", "poll"]) {
  const path = transport === "sse" ? "sse" : "poll&wait=0";
  const respond = async (/** @type {any[]} */ frames, /** @type {any[]} */ events = []) => {
    if (transport === "sse") await FakeRequest.last.stream(...frames, ...events);
    else await FakeRequest.last.poll(frames, events);
  };

  test(`${transport}: cursors go into a header, and other starts into the URL`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    assert.equal(cursorHeader(FakeRequest.last), null);
    await respond([subscribed("a", cursor("a", 0))], [event(1), event(2)]);
    client.subscribe("b", { since: "@5.5" });
    client.subscribe("c", { since: "@5.5" });
    client.subscribe("d", { since: cursor("d", 3) });
    await advance(3_000);
    assert.equal(FakeRequest.last.text, `${path}&topic=a&topic=b&topic=c&topic=d&since=@5.5`);
    assert.equal(cursorHeader(FakeRequest.last), compose([["a", cursor("a", 2)], ["d", cursor("d", 3)]]));
    client.subscribe("e");
    client.subscribe("f", { last: 3 });
    await advance(3_000);
    const since = "since=&since=@5.5&since=@5.5&since=&since=&since=";
    const last = "last=&last=&last=&last=&last=&last=3";
    assert.match(FakeRequest.last.text, /topic=e&topic=f/);
    assert.ok(FakeRequest.last.text.endsWith(`${since}&${last}`), FakeRequest.last.text);
    assert.deepEqual(got, [1, 2]);
  });

  test(`${transport}: a hundred long names with their cursors stay under 8 KB`, async () => {
    const { client, advance } = makeNetworkClient({ transport });
    const names = Array.from({ length: 100 }, (_, n) => `topic.${n}.`.padEnd(46, "x"));
    for (const name of names) client.subscribe(name, { since: "@1763801234.123456" });
    await advance(0);
    await respond([]);
    await advance(50);
    const length = () => FakeRequest.last.url.pathname.length + FakeRequest.last.url.search.length;
    assert.ok(length() < 6_000, `${length()} characters`);
    await respond(names.map((name) => subscribed(name, cursor(name, 10 ** 7))));
    client.subscribe("another", { since: "@1763801235.5" });
    await advance(3_000);
    assert.ok(length() < 6_000, `${length()} characters`);
    assert.ok((cursorHeader(FakeRequest.last)?.length ?? 0) < 2_500);
    assert.match(FakeRequest.last.text, /since=@1763801235.5$/);
  });

  test(`${transport}: cursors go into the URL when a proxy strips the header`, async () => {
    const { client, advance, got, counts } = await makeFollowing(transport);
    await respond([subscribed("a", cursor("a", 0))], [event(1)]);
    client.subscribe("b", { since: cursor("b", 5) });
    await advance(3_000);
    // Without the header the server does not know where to start.
    const answers = [subscribed("a", cursor("a", 7)), subscribed("b", cursor("b", 9))];
    await respond(answers, [event(8), event(10, "b")]);
    assert.deepEqual(got, [1]);
    await advance(3_000);
    assert.equal(cursorHeader(FakeRequest.last), null);
    const since = `since=${cursor("a", 1)}&since=${cursor("b", 5)}`;
    assert.equal(FakeRequest.last.text, `${path}&topic=a&topic=b&${since}`);
    const again = answers.map(({ topic }) => {
      return subscribed(topic, cursor(topic, topic === "a" ? 1 : 5), { recovered: true });
    });
    await respond(again, [event(2), event(3)]);
    assert.deepEqual([got, counts.resets], [[1, 2, 3], 0]);
  });

  test(`${transport}: topics that make the URL too long for a proxy are denied, and the others continue`, async () => {
    const { client, advance, got, states } = await makeFollowing(transport, { transport: "auto", storage: {
      getItem: () => transport,
      setItem: () => {},
    } });
    await respond([subscribed("a", cursor("a", 0))]);
    /** @type {any[]} */
    const denials = [];
    const names = Array.from({ length: 99 }, (_, n) => `${n}.`.padEnd(200, "x"));
    for (const name of names) client.subscribe(name).onDenied((denial) => denials.push(denial));
    await advance(3_000);
    await FakeRequest.last.answer(414);
    const { code, message } = denials[0];
    assert.equal(code, "too_many_topics");
    assert.match(message, /follow fewer, .* shorter names, or raise the proxy's limit/);
    await advance(3_000);
    const url = FakeRequest.last.url;
    assert.ok(url.pathname.length + url.search.length <= 8_000);
    const left = url.searchParams.getAll("topic");
    assert.deepEqual(left, ["a", ...names.slice(0, 99 - denials.length)]);
    assert.equal(left.length, 39, "as many as fit");
    await respond([subscribed("a", cursor("a", 0), { recovered: true })], [event(1)]);
    assert.deepEqual(got, [1]);
    assert.deepEqual(states, ["connecting", "connected"]);
  });

  test(`${transport}: topics are denied until the request fits even a lower limit of a proxy`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    await respond([subscribed("a", cursor("a", 0))]);
    /** @type {string[]} */
    const denied = [];
    for (const name of [..."bcdefgh"]) client.subscribe(name).onDenied(() => denied.push(name));
    await advance(3_000);
    const from = FakeRequest.all.length;
    while (FakeRequest.last.url.searchParams.get("topic")) {
      await FakeRequest.last.answer(431);
      await advance(100);
    }
    assert.ok(FakeRequest.all.length - from < 8, `${FakeRequest.all.length - from} requests`);
    assert.deepEqual(denied.toSorted(), [..."bcdefgh"]);
    assert.deepEqual(got, ["too_many_topics"]);
    await advance(20_000);
    await respond([]);
    assert.equal(client.state, "connected");
  });

  test(`${transport}: a start that the server cannot read denies the new topics only`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    await respond([subscribed("a", cursor("a", 0))], [event(1)]);
    client.subscribe("b", { last: -1 }).onDenied(({ code }) => got.push(code));
    await advance(3_000);
    await FakeRequest.last.refuse(400, "bad_frame");
    assert.deepEqual(got, [1, "bad_frame"]);
    await advance(3_000);
    assert.equal(FakeRequest.last.url.searchParams.getAll("topic").join(), "a");
    assert.equal(client.state, "connected");
    await flush();
  });
}
