import { parse, VERSION } from "./transport.js";

/** @import {Frame, Transport} from "./transport.js" */

const AUTH = 0; // the id of the auth frame; commands start at 1

/** @type {Transport} */
export const websocket = {
  name: "websocket",
  timeout: 5_000,
  isStream: true,
  open(base, { frame, closed }, { credentials }) {
    const url = new URL(`ws?v=${VERSION}`, base);
    url.protocol = base.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    /** @param {Frame} value */
    const send = (value) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
    };
    const close = () => {
      // The close handshake takes minutes on a dead network; do not wait for it.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    };
    const receive = (/** @type {Frame} */ value) => frame(value);
    const end = (/** @type {number} */ code) => {
      if (!socket.onclose) return;
      close();
      closed(code);
    };
    /** @param {(value: Frame) => void} handle Called with each frame from now on. */
    const listen = (handle) => {
      socket.onmessage = ({ data }) => {
        const value = parse(data);
        if (value) handle(value);
      };
    };
    socket.onclose = ({ code }) => closed(code);
    if (!credentials.hasToken) listen(receive);
    else {
      // The first welcome is for an anonymous visitor; the one after the token is for the user.
      listen((value) => {
        if (value.type === "closing") receive(value);
        if (value.id !== AUTH) return;
        if (value.type === "ok") listen(receive);
        else end(value.code === "unauthorized" ? 4401 : 1006);
      });
      /** @param {string | null} token */
      const authenticate = (token) => send({ type: "auth", id: AUTH, token });
      socket.onopen = () => void credentials.get().then(authenticate, () => end(1006));
    }
    return { send, close };
  },
};
