#!/usr/bin/env node
// A peer to compare with: a chat room with socket.io 4, what one takes in Node. A room is one of socket.io's; nodes are
// joined by @socket.io/redis-adapter. The load generator speaks Engine.IO's and Socket.IO's framing over the WebSocket
// transport (--dialect socketio), so there is no adapter in here: each packet is an event `hall` with an object of
// townhall.v1, and what that costs is 11 bytes a frame and, for each message but not for each delivery, one more answer,
// `accepted`.
//
//     peer-socketio [--redis URL] ADDRESS
//
// Set up as its documentation has it for many clients: WebSocket alone, no compression (the default), bufferutil, and
// the first request of a connection forgotten.
//
// What it does not promise: it stores nothing, resumes nobody and knows no id again. Between nodes there is no order: the
// adapter tells a node's own clients at once and those of others by way of Redis. Nor are there offsets: so that losses
// can be counted, each message takes a number from Redis (INCR) before it is sent, which costs a round trip a message. That
// number is right for who joins while nobody speaks, as the load generator does.
import { createServer } from "node:http";
import { parseArgs } from "node:util";

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const EVENT = "hall";

/** Numbers of a room's messages, for one node alone. */
function counted() {
  const offsets = new Map();
  return {
    current: (room) => offsets.get(room) ?? 0,
    next(room) {
      const offset = this.current(room) + 1;
      offsets.set(room, offset);
      return offset;
    },
  };
}

/** The same for several nodes, and the adapter that joins them. */
async function joined(url) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) client.on("error", (error) => console.error(error.message));
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const key = (room) => `socketio:offset:${room}`;
  return {
    adapter: createAdapter(publisher, subscriber, { publishOnSpecificResponseChannel: true }),
    current: async (room) => Number((await publisher.get(key(room))) ?? 0),
    next: (room) => publisher.incr(key(room)),
  };
}

function serve(io, socket, offsets) {
  const from = { id: "guest-000000000000000000000000", name: socket.handshake.query.name };
  const say = async ({ room, id, text }) => {
    const offset = await offsets.next(room);
    io.to(room).emit(EVENT, { room, offset, at: Date.now(), type: "message", id, from, text });
    socket.emit(EVENT, { type: "accepted", room, id, epoch: "peer", offset });
  };
  const join = async ({ room, ref }) => {
    socket.join(room);
    socket.emit(EVENT, { type: "joined", room, epoch: "peer", offset: await offsets.current(room), backlog: 0, ref });
  };
  const failed = (error) => {
    console.error(error.message);
    socket.disconnect(true);
  };
  socket.on(EVENT, (command) => {
    if (command?.type === "say") say(command).catch(failed);
    if (command?.type === "join") join(command).catch(failed);
  });
  socket.emit(EVENT, { type: "welcome", beat: io.engine.opts.pingInterval / 1000 });
}

const { values, positionals } = parseArgs({ options: { redis: { type: "string" } }, allowPositionals: true });
const address = /^(.+):(\d+)$/.exec(positionals.join(" "));
if (!address) {
  console.error("usage: peer-socketio [--redis URL] ADDRESS");
  process.exit(2);
}
const offsets = values.redis ? await joined(values.redis) : counted();
const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false, adapter: offsets.adapter });
io.engine.on("connection", (connection) => (connection.request = null));
io.on("connection", (socket) => serve(io, socket, offsets));
// As many as the system allows may wait to be let in, as with Go; by itself Node lets 511.
http.listen({ port: Number(address[2]), host: address[1], backlog: 65535 });
