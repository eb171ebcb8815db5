import { HttpConnection, HttpError, StreamEnded } from "./http.js";
import { parse } from "./transport.js";

/** @import {Transport} from "./transport.js" */

/** @type {Transport} */
export const sse = {
  name: "sse",
  timeout: 4_000, // short, because a proxy that buffers the stream until it ends delivers nothing
  isStream: true,
  holdsRequest: true,
  canStall: true,
  open: (base, handlers, tools) => new HttpConnection(readStream, base, handlers, tools),
};

/**
 * Read an event stream. It uses `fetch()`, because `EventSource` neither reports the status nor
 * sends headers.
 *
 * @param {HttpConnection} connection @param {AbortSignal} signal @returns {Promise<never>}
 */
async function readStream(connection, signal) {
  const response = await connection.get("sse", { ids: "0" }, signal);
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream || !response.body) throw new HttpError(415); // not from our server
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const split = makeSplitter();
  /** @type {string[]} */
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (signal.aborted || done) throw new StreamEnded();
    for (const line of split(decoder.decode(value, { stream: true }))) {
      if (line.startsWith("data:")) data.push(line.slice(5));
      if (line) continue;
      const frame = data.length ? parse(data.join("\n")) : null;
      data = [];
      if (frame) connection.receive(frame);
      if (signal.aborted) throw new StreamEnded(); // a listener changed the topics
    }
  }
}

/** @returns {(text: string) => string[]} a function that returns the lines that a chunk completes. */
function makeSplitter() {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    return lines;
  };
}
