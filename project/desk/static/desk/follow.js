// Follow topics over one WebSocket, and resume after every break: see docs/wire-protocol.md.
// `cursors` is a Map of topic to cursor; `on` has event(), subscribed(), reload() and closed().
export function follow(cursors, on, wait = 250) {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/realtime/ws?v=1");
  let silence;
  socket.onopen = () => cursors.forEach((since, topic) =>
    socket.send(JSON.stringify({type: "subscribe", topic, since})));
  socket.onmessage = ({data}) => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), 35_000);  // heartbeats come every 25 seconds
    const frame = JSON.parse(data);
    if (frame.cursor) cursors.set(frame.topic, frame.cursor);
    if (frame.type === "subscribed") { wait = 250; on.subscribed(frame); }
    if (frame.type === "event") on.event(frame);
    if (frame.type === "reset" || frame.recovered === false) on.reload();
    if (frame.type === "error" && frame.retry) socket.close();
  };
  socket.onclose = ({code}) => {
    const forGood = code >= 4400 && code <= 4499;
    on.closed(forGood);
    wait = Math.min(wait * 2, 4_000);  // a site with many visitors goes up to 30 seconds
    if (!forGood) setTimeout(follow, Math.random() * wait, cursors, on, wait);
  };
}
