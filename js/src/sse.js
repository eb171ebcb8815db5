import { Ended, HttpLink, Refusal } from "./http.js";
import { parse } from "./links.js";

/** @import {Transport} from "./links.js" */

/** @type {Transport} */
export const sse = {
  name: "sse",
  patience: 4_000, // a proxy that holds the stream back until it ends brings nothing
  isStream: true,
  isStalling: true,
  open: (base, hearing, tools) => new HttpLink(stream, base, hearing, tools),
};

/**
 * Read an event stream; with `fetch()`, since `EventSource` tells no status and takes no header.
 *
 * @param {HttpLink} link @param {AbortSignal} signal @returns {Promise<never>}
 */
async function stream(link, signal) {
  const response = await link.get("sse", { ids: "0" }, signal);
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream || !response.body) throw new Refusal(415); // of something in between
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const lines = makeSplitter();
  /** @type {string[]} */
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (signal.aborted || done) throw new Ended();
    for (const line of lines(decoder.decode(value, { stream: true }))) {
      if (line.startsWith("data:")) data.push(line.slice(5));
      if (line) continue;
      const frame = data.length ? parse(data.join("\n")) : null;
      data = [];
      if (frame) link.take(frame);
      if (signal.aborted) throw new Ended(); // a listener followed something else
    }
  }
}

/** @returns {(text: string) => string[]} what gives the lines that a piece of text completes. */
function makeSplitter() {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    return lines;
  };
}
