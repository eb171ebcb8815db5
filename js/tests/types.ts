// tsc fails here if the shipped declarations differ from the sources.
import type * as shipped from "../../realtime/static/realtime/realtime.js";
import type { Client } from "../src/client.js";
import * as source from "../src/index.js";

type Internal =
  | "connector"
  | "attachTo"
  | "switchTo"
  | "subscribeUser"
  | "deliver"
  | "reset"
  | "deny"
  | "updateMembers"
  | "isFollowed"
  | "since";
type Same<One, Other> = [One] extends [Other] ? ([Other] extends [One] ? true : never) : never;

export const all: typeof shipped = source;
export const check = (client: Client): Omit<shipped.Client, "addEventListener"> => client;
export const members: Same<Exclude<keyof Client, Exclude<Internal, "since">>, keyof shipped.Client> = true;
export const ofTopics: Same<Exclude<keyof Client["user"], Internal>, keyof shipped.Topic> = true;
export const states: Same<Client["state"], shipped.State> = true;

// What the author of a page writes.
export function page(realtime: shipped.Client): void {
  const order = realtime.subscribe("orders.42", { last: 20 });
  const off: () => void = order.on<{ eta: string }>("shipped", ({ eta }, { seq }) => [eta, seq]);
  order.onMembers((members, change, count) => [members[0]?.user, change?.type === "join", count + 1]);
  realtime.addEventListener("statechange", ({ state, code }) => [state, code]);
  // @ts-expect-error This state does not exist.
  if (realtime.state === "open") off();
}

export function pageWithElements(): void {
  document.createElement("realtime-topic").addEventListener("realtime:shipped", ({ detail }) => {
    const seq: number | undefined = detail.seq;
    return seq;
  });
  document.addEventListener("realtime-reset", ({ detail: { topic } }) => topic.length);
  document.addEventListener("realtime-denied", ({ detail: { topic, code } }) => [topic, code]);
  // @ts-expect-error A mouse event has no such detail.
  document.addEventListener("click", ({ detail: { topic } }) => topic);
}
