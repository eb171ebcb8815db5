// The types of realtime.js; docs/javascript.md says more.

/** `waiting`: there is no connection now, and there will be one. */
export type State = "connecting" | "connected" | "waiting" | "denied" | "closed";

export interface Event<Data = any> {
  topic: string;
  /** The event's name. */
  event: string;
  data: Data;
  /** The place just after it; an ephemeral event has none. */
  cursor?: string;
  /** Its number in the topic: 1, 2, 3 …; an ephemeral event has none. */
  seq?: number;
  /** Seconds since 1970 on the clock of the log. */
  time?: number;
}

export interface Denial {
  /** A code of the wire protocol, `forbidden` most of the time. */
  code: string;
  message: string;
}

/** Somebody who is on a topic with `presence = True`. */
export interface Member {
  /** `user.7` for the user 7; for a visitor who is not signed in, `connection.` and a random name. */
  id: string;
  /** The user's primary key; null for a visitor. */
  user: string | null;
  /** What the topic's `member_info()` returned. */
  info: any;
}

/** What made the list of members another one. */
export interface Change {
  type: "join" | "leave";
  member: Member;
}

/** Where to begin; at most one of the two. */
export interface Start {
  /** The newest events of this number. */
  last?: number;
  /** The events after a cursor, or from `@` and seconds since 1970 on. */
  since?: string | null;
}

export interface Topic {
  /** Null for `realtime.user` until the server said who that is. */
  readonly name: string | null;
  /** Call a function for each event of a name, or of all with `"*"`; the answer removes it. */
  on<Data = any>(event: string, run: (data: Data, event: Event<Data>) => unknown): () => void;
  /** Call a function when events were missed for good: fetch the state anew. */
  onReset(run: () => unknown): () => void;
  /** Call a function when the server does not let us follow this, or does no longer. */
  onDenied(run: (denial: Denial) => unknown): () => void;
  /**
   * Call a function with who is on the topic, now and whenever that changes; the answer removes it.
   * The change is null where the list is new. Never called for a topic without presence.
   */
  onMembers(run: (members: Member[], change: Change | null) => unknown): () => void;
  /** Who is on the topic, in the order in which they came; null as long as it was not told. */
  readonly members: Member[] | null;
  /** Publish one of the topic's client events; rejects with a `RealtimeError`. */
  publish(event: string, data?: any): Promise<void>;
  /** Run an action of the topic and get what it returned; rejects with a `RealtimeError`. */
  call<Result = any>(action: string, data?: any): Promise<Result>;
  unsubscribe(): void;
}

export class RealtimeError extends Error {
  constructor(code: string, message: string, retry?: boolean);
  /** The server's code, or `disconnected`, `timeout`, `denied`, `closed`. */
  code: string;
  /** Whether the same may succeed a few seconds later. */
  retry: boolean;
}

export interface StateChange extends globalThis.Event {
  readonly state: State;
  /** The close code that led here, or null. */
  readonly code: number | null;
  /** What the server said with it, or null. */
  readonly reason: string | null;
}

export interface UserChange extends globalThis.Event {
  readonly userId: string | null;
  readonly previous: string | null;
}

export type Transport = "websocket" | "sse" | "longpoll" | "poll";

export interface TransportChange extends globalThis.Event {
  readonly transport: Transport;
  readonly previous: Transport;
}

export interface Client extends EventTarget {
  readonly state: State;
  /** The name of the transport in use, or of the last one that was. */
  readonly transport: Transport;
  /** When the page's request began, as `@` and seconds since 1970; null if nobody said so. */
  readonly since: string | null;
  /** Headers for the page's own requests, so that it ignores the events that they cause. */
  readonly headers: Readonly<Record<string, string>>;
  /** The key of the user, null for nobody, undefined before the server said so. */
  readonly userId: string | null | undefined;
  readonly user: Topic;
  readonly everyone: Topic;
  subscribe(name: string, start?: Start): Topic;
  /** Connect anew, with the cookies of now. */
  reconnect(): void;
  close(): void;
  addEventListener(
    type: "statechange",
    listener: ((event: StateChange) => unknown) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "userchange",
    listener: ((event: UserChange) => unknown) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "transportchange",
    listener: ((event: TransportChange) => unknown) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface Options {
  /** Where the app is mounted, such as `/realtime/`. */
  url: string | URL;
  /** The key of the user that the page was rendered for, or null for nobody. */
  user?: string | null;
  /** Where `user` and `everyone` begin: a moment, as `@` and seconds since 1970. */
  since?: string | null;
  /** The only transport to use; the first one that works, if `auto` or left out. */
  transport?: "auto" | Transport;
  /** Who the page is, where it has no session; a function is asked again when it is refused. */
  token?: string | (() => string | Promise<string>);
}

export function createClient(options: Options): Client;

/** The page's client, where a script element has `data-realtime-url`. */
export const realtime: Client | undefined;

/** `<realtime-topic name="orders.42" on="shipped paid" since="…">`. */
export interface RealtimeTopicElement extends HTMLElement {}

declare global {
  interface Window {
    realtime?: Client;
  }
  interface HTMLElementTagNameMap {
    "realtime-topic": RealtimeTopicElement;
  }
  // Of the element, where they begin, and of whatever they bubble through.
  interface GlobalEventHandlersEventMap {
    [event: `realtime:${string}`]: CustomEvent<Event>;
    /** Events were missed for good; `preventDefault()` keeps it out of the console. */
    "realtime-reset": CustomEvent<{ topic: string }>;
    /** The server does not let this user follow the topic; `preventDefault()` as above. */
    "realtime-denied": CustomEvent<Denial & { topic: string }>;
    "realtime-members": CustomEvent<{ topic: string; members: Member[]; change: Change | null }>;
  }
}
