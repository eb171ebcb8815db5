// The same with Node and ws: sends the body of each POST to all WebSockets and event streams.
import http from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const streams = new Set();

function publish(text) {
  for (const client of sockets.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(text);
  }
  const entry = `data: ${text}\n\n`;
  for (const stream of streams) stream.write(entry);
}

const server = http.createServer((request, response) => {
  if (request.method === "POST") {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (part) => { body += part; });
    request.on("end", () => {
      publish(body);
      response.end();
    });
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(": hello\n\n");
  streams.add(response);
  response.on("close", () => streams.delete(response));
});
const sockets = new WebSocketServer({ server });
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
