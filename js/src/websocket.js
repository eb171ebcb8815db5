/**
 * A frame of the wire protocol; `docs/wire-protocol.md` says what they hold.
 *
 * @typedef {{type: string, [field: string]: any}} Frame
 */

/**
 * One open connection of a transport.
 *
 * @typedef {object} Link
 * @property {(frame: Frame) => void} send Send a frame; called after the first frame came only.
 * @property {() => void} close End it; nothing is heard of it afterwards.
 */

/**
 * A way to the server: everything else is the same for all of them.
 *
 * `open()` answers at once; `frame` is called for each frame of the server's, and `closed` once,
 * with a close code (1006 where there is none), unless `close()` was called before.
 *
 * @typedef {object} Transport
 * @property {string} name
 * @property {(base: URL, frame: (frame: Frame) => void, closed: (code: number) => void) => Link} open
 */

const VERSION = 1; // of the wire protocol

/** @type {Transport} */
export const websocket = {
  name: "websocket",
  open(base, frame, closed) {
    const url = new URL(`ws?v=${VERSION}`, base);
    url.protocol = base.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    socket.onmessage = ({ data }) => {
      const value = parse(data);
      if (value) frame(value);
    };
    socket.onclose = ({ code }) => closed(code);
    return {
      send(value) {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
      },
      close() {
        // A close handshake over a dead network takes minutes; nobody waits for it.
        socket.onmessage = socket.onclose = null;
        socket.close();
      },
    };
  },
};

/** @param {unknown} data @returns {Frame | null} null for what is no frame, which is passed over. */
function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return value && typeof value.type === "string" ? value : null;
  } catch {
    return null;
  }
}
