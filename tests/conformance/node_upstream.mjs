// A Node server that writes down every request it could read, and every one it could not. Arguments: port, file.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

const [port, file] = process.argv.slice(2);
const told = (record) => appendFileSync(file, JSON.stringify(record) + "\n", "latin1");
const server = createServer({ keepAliveTimeout: 60000, maxHeaderSize: 262144 }, (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("latin1");
    told({ method: request.method, target: request.url, body });
    response.end(`${request.method} ${request.url} ${body.length}\n`);
  });
  request.on("error", () => {}); // the front gave it up: no request
});
server.on("clientError", (error, socket) => {
  // Ends in the middle are what a front does to a request that it refuses half-way.
  if (!["ECONNRESET", "HPE_INVALID_EOF_STATE"].includes(error.code)) {
    told({ method: "(unreadable)", target: String(error.code), body: "" });
  }
  socket.destroy();
});
server.listen(Number(port), "127.0.0.1");
