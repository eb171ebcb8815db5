// The types of realtime.js; docs/javascript.md describes the API.

/** `waiting` means that there is no connection now and the client will connect again. */
export type State = "connecting" | "connected" | "waiting" | "denied" | "closed";

export interface Event<Data = any> {
  topic: string;
  /** The event's name. */
  event: string;
  data: Data;
  /** Resume with it as `since`; an ephemeral event has none. */
  cursor?: string;
  /** The event's number in the topic: 1, 2, 3 …; an ephemeral event has none. */
  seq?: number;
  /** Seconds since 1970 on the clock of the log. */
  time?: number;
}

export interface Denial {
  /** A code of the wire protocol, usually `forbidden`. */
  code: string;
  message: string;
}

/** A member of a topic with `presence = True`. */
export interface Member {
  /** `user.7` for user 7; `connection.` and a random name for a visitor who is not signed in. */
  id: string;
  /** The user's primary key; null for a visitor. */
  user: string | null;
  /** What the topic's `member_info()` returned. */
  info: any;
}

/** A change of the list of members. */
export interface Change {
  type: "join" | "leave";
  member: Member;
}

/** Where to begin; at most one of the two. */
export interface Start {
  /** How many of the newest events to get first. */
  last?: number;
  /** Get the events after a cursor, or after a time: `@` followed by seconds since 1970. */
  since?: string | null;
}

export interface Topic {
  /** Null for `realtime.user` until the server has sent the user. */
  readonly name: string | null;
  /**
   * Call a function for each event of one name, or for all events with `"*"`; returns a function
   * that removes it.
   */
  on<Data = any>(event: string, run: (data: Data, event: Event<Data>) => unknown): () => void;
  /** Call a function when events were missed for good; it should fetch the state again. */
  onReset(run: () => unknown): () => void;
  /** Call a function when the server refuses the topic, or ends the subscription. */
  onDenied(run: (denial: Denial) => unknown): () => void;
  /**
   * Call a function with the members, now and after each change; returns a function that removes
   * it.
   * The change is null for a new list. Where there are too many members for a list, it is empty,
   * and the count changes at most once a second. Never called for a topic without presence.
   */
  onMembers(
    run: (members: Member[], change: Change | null, count: number) => unknown,
  ): () => void;
  /** The members in the order in which they joined; null until the first list has arrived. */
  readonly members: Member[] | null;
  /** The number of members, also where there are too many for a list; null until it arrived. */
  readonly memberCount: number | null;
  /** Publish one of the topic's client events; rejects with a `RealtimeError`. */
  publish(event: string, data?: any): Promise<void>;
  /** Run an action of the topic and return its result; rejects with a `RealtimeError`. */
  call<Result = any>(action: string, data?: any): Promise<Result>;
  unsubscribe(): void;
}

export class RealtimeError extends Error {
  constructor(code: string, message: string, retry?: boolean);
  /** The server's code, or `disconnected`, `timeout`, `denied`, `closed`. */
  code: string;
  /** Whether the same command may succeed a few seconds later. */
  retry: boolean;
}

export interface StateChange extends globalThis.Event {
  readonly state: State;
  /** The close code that led to the state, or null. */
  readonly code: number | null;
  /** The server's reason for the close, or null. */
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
  /** The name of the transport in use, or of the last one in use. */
  readonly transport: Transport;
  /** When the page's request began: `@` followed by seconds since 1970; null if not known. */
  readonly since: string | null;
  /** Headers for the page's own requests: the page ignores the events that such requests cause. */
  readonly headers: Readonly<Record<string, string>>;
  /** The key of the user; null if nobody is signed in, undefined until the user is known. */
  readonly userId: string | null | undefined;
  readonly user: Topic;
  readonly everyone: Topic;
  subscribe(name: string, start?: Start): Topic;
  /** Connect again with the current cookies. */
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
  /** The key of the user that the page was rendered for; null if nobody was signed in. */
  user?: string | null;
  /** The time from which `user` and `everyone` start: `@` followed by seconds since 1970. */
  since?: string | null;
  /** The only transport to use; with `auto`, the default, the first that works. */
  transport?: "auto" | Transport;
  /** For a page without a session. A function is called again when the server refuses its token. */
  token?: string | (() => string | Promise<string>);
}

export function createClient(options: Options): Client;

/** The page's client, if a script element has `data-realtime-url`. */
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
  // The events start at the element and bubble.
  interface GlobalEventHandlersEventMap {
    [event: `realtime:${string}`]: CustomEvent<Event>;
    /** Events were missed for good; `preventDefault()` stops the warning in the console. */
    "realtime-reset": CustomEvent<{ topic: string }>;
    /** The server refused the topic or ended the subscription; `preventDefault()` as above. */
    "realtime-denied": CustomEvent<Denial & { topic: string }>;
    "realtime-members": CustomEvent<{
      topic: string;
      members: Member[];
      change: Change | null;
      count: number;
    }>;
  }
}
