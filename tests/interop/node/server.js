// An ordinary Node server of both services, which knows nothing of grpcrouter: `node server.js [PORT]`. It prints one line
// when it is ready, and one for each call that was cut off.
"use strict";

const grpc = require("@grpc/grpc-js");
const { user, encodeStatus } = require("./services");

const users = [];

// Answers with an error that has all a client may look at: a message, details, metadata and trailers.
function getUser(call, callback) {
  const initial = new grpc.Metadata();
  for (const value of call.metadata.get("x-trace")) initial.add("x-trace", value);
  call.sendMetadata(initial);
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get("x-blob-bin")) trailers.add("x-blob-bin", value);
  const id = call.request.id;
  const found = users[id - 1];
  if (found) return callback(null, found, trailers);
  const message = `User ${id} not found`;
  trailers.set("grpc-status-details-bin", encodeStatus(grpc.status.NOT_FOUND, message, "user", String(id)));
  callback({ code: grpc.status.NOT_FOUND, details: message, metadata: trailers });
}

function createUser(call, callback) {
  const { name, email } = call.request;
  const created = { id: users.length + 1, name, email, status: "USER_STATUS_ACTIVE" };
  users.push(created);
  callback(null, created);
}

function listUsers(call) {
  for (const one of users) call.write(one);
  call.end();
}

// Also tells in its initial metadata whether the call came with a deadline.
function chat(call) {
  const initial = new grpc.Metadata();
  initial.set("x-deadline", Number.isFinite(Number(call.getDeadline())) ? "set" : "none");
  call.sendMetadata(initial);
  call.on("data", (message) => call.write({ user_id: "server", content: `Echo: ${message.content}` }));
  onEnd(call, () => call.end(), () => console.log("Chat was cut off"));
}

// Sends its initial metadata once the first chunk is there, so that a client can wait for that.
function uploadFile(call, callback) {
  const uploaded = { chunks: 0, size: 0 };
  call.on("data", (chunk) => {
    if (uploaded.chunks === 0) {
      const initial = new grpc.Metadata();
      initial.set("x-started", "yes");
      call.sendMetadata(initial);
    }
    uploaded.chunks += 1;
    uploaded.size += chunk.data.length;
  });
  const complete = () => {
    console.log("UploadFile is complete");
    callback(null, uploaded);
  };
  onEnd(call, complete, () => console.log(`UploadFile was cut off after ${uploaded.chunks} chunks`));
}

// One of the two, once. Node says "end" for a stream that was reset too, and grpc-js says "cancelled" after a good end too:
// which it was is known a turn of the event loop after "end".
function onEnd(call, finished, cut) {
  let over = false;
  const once = (then) => () => {
    if (!over) then();
    over = true;
  };
  call.on("end", () =>
    setImmediate(() => {
      if (!call.cancelled) once(finished)();
    }),
  );
  call.on("cancelled", once(cut));
}

const server = new grpc.Server();
server.addService(user.UserService.service, { getUser, createUser, listUsers, chat });
server.addService(user.FileService.service, { uploadFile });
server.bindAsync(`127.0.0.1:${process.argv[2] ?? 50051}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`Server started on port ${port}`);
});
