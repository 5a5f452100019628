// An ordinary Node client of both services, which knows nothing of grpcrouter: `node client.js ADDRESS [all]`.
// Its first lines are those of the Python client; `all` adds what only exact gRPC gets right. When it cancels, Node itself
// ends the stream first and resets it then, so that a server may see a clean end: this client does not ask it what it saw.
"use strict";

const grpc = require("@grpc/grpc-js");
const { user, decodeDetails } = require("./services");

// No call may hang a test.
const PATIENCE = 20_000;
// Long enough that the call is at the server when it passes, on a busy machine too.
const DEADLINE = 1_000;
const CHUNKS = 3;
// More than one window of HTTP/2 in all.
const CHUNK_SIZE = 100_000;

const [, , address, all] = process.argv;
const credentials = grpc.credentials.createInsecure();
const users = new user.UserService(address, credentials);
const files = new user.FileService(address, credentials);

const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });
const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));
// How a stream ended.
const end = (call) => new Promise((resolve) => call.once("error", resolve).once("end", () => resolve({ code: 0 })));
const unary = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, within(PATIENCE), (error, response) => (error ? reject(error) : resolve(response))),
  );

async function conversation() {
  const created = await unary(users, "createUser", { name: "John Doe", email: "john@example.com" });
  console.log(`Created user: ${created.id}`);

  console.log("Listing users:");
  for await (const one of users.listUsers({}, within(PATIENCE))) console.log(`  - ${one.name}`);

  const chat = users.chat(within(PATIENCE));
  for (const content of ["Hello", "How are you?", "Goodbye"]) chat.write({ user_id: "client", content });
  chat.end();
  for await (const response of chat) console.log(`Server: ${response.content}`);
}

async function upload() {
  const uploaded = await new Promise((resolve, reject) => {
    const call = files.uploadFile(within(PATIENCE), (error, response) => (error ? reject(error) : resolve(response)));
    for (let chunk = 0; chunk < CHUNKS; chunk += 1) call.write({ data: Buffer.alloc(CHUNK_SIZE, "x") });
    call.end();
  });
  console.log(`UploadFile: ${uploaded.chunks} chunks, ${uploaded.size} bytes`);
}

async function failure() {
  const sent = new grpc.Metadata();
  sent.add("x-trace", "one");
  sent.add("x-trace", "two");
  sent.add("x-blob-bin", Buffer.from([0x00, 0xff, 0x10]));
  let initial;
  const error = await new Promise((resolve) => {
    const call = users.getUser({ id: 42 }, sent, within(PATIENCE), (error) => resolve(error));
    call.once("metadata", (metadata) => (initial = metadata));
  });
  console.log(`GetUser: ${grpc.status[error.code]}: ${error.details}`);
  for (const bytes of error.metadata.get("grpc-status-details-bin")) {
    for (const { resourceType, resourceName } of decodeDetails(bytes)) {
      console.log(`  details: ${resourceType} ${resourceName}`);
    }
  }
  // grpc-js joins what came twice with a comma and a blank.
  console.log(`  initial x-trace: ${initial.get("x-trace").join(",").replaceAll(", ", ",")}`);
  console.log(`  trailing x-blob-bin: ${error.metadata.get("x-blob-bin").map((bytes) => bytes.toString("hex"))}`);
}

// A chat whose first message was answered and that stays open.
async function answeredChat(milliseconds) {
  const chat = users.chat(within(milliseconds));
  const initial = event(chat, "metadata");
  const answer = event(chat, "data");
  const ended = end(chat);
  chat.write({ user_id: "client", content: "Hello" });
  await answer;
  return { chat, initial: await initial, ended };
}

async function passedDeadline() {
  const { initial, ended } = await answeredChat(DEADLINE);
  console.log(`Chat with a deadline: ${initial.get("x-deadline")}, ${grpc.status[(await ended).code]}`);
}

async function cancelledChat() {
  const { chat, ended } = await answeredChat(PATIENCE);
  chat.cancel();
  console.log(`Chat that the client cancels: ${grpc.status[(await ended).code]}`);
}

async function cancelledUpload() {
  let call;
  const ended = new Promise((resolve) => {
    call = files.uploadFile(within(PATIENCE), (error) => resolve(error ?? { code: 0 }));
  });
  const initial = event(call, "metadata");
  call.write({ data: Buffer.from("x") });
  await initial;
  call.cancel();
  console.log(`UploadFile that the client cancels: ${grpc.status[(await ended).code]}`);
}

async function main() {
  await conversation();
  if (all === "all") {
    for (const part of [upload, failure, passedDeadline, cancelledChat, cancelledUpload]) await part();
  }
  users.close();
  files.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
