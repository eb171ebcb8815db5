import { parse, VERSION } from "./links.js";

/** @import {Credentials} from "./credentials.js" */
/** @import {Frame, Transport} from "./links.js" */

const AUTH = 0; // the id of an auth frame; those of commands begin with 1

/** @type {Transport} */
export const websocket = {
  name: "websocket",
  patience: 5_000,
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
      // A close handshake over a dead network takes minutes; nobody waits for it.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    };
    const hear = (/** @type {Frame} */ value) => frame(value);
    const end = (/** @type {number} */ code) => {
      if (!socket.onclose) return;
      close();
      closed(code);
    };
    /** Take frames from a connection on. @param {(value: Frame) => void} hear */
    const listen = (hear) => {
      socket.onmessage = ({ data }) => {
        const value = parse(data);
        if (value) hear(value);
      };
    };
    socket.onclose = ({ code }) => closed(code);
    if (!credentials.exist) listen(hear);
    else {
      // The welcome that comes by itself is nobody's; the one after the token is ours.
      listen((value) => {
        if (value.type === "closing") hear(value);
        if (value.id !== AUTH) return;
        if (value.type === "ok") listen(hear);
        else end(value.code === "unauthorized" ? 4401 : 1006);
      });
      const sign = (/** @type {string | null} */ token) => send({ type: "auth", id: AUTH, token });
      socket.onopen = () => void credentials.get().then(sign, () => end(1006));
    }
    return { send, close };
  },
};
