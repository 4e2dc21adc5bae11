import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { Server, ServerCredentials, type ServerWritableStream } from "@grpc/grpc-js";
import { CancelledError, Client, InternalError, text } from "@trunkline/client";
import { CompletionServiceService } from "@trunkline/client/v1";

// A port that nothing listens on.
const NOWHERE = "127.0.0.1:1";

test("a client that is closed cancels what runs, and what is begun later", async () => {
  const client = new Client(NOWHERE);
  const running = client.getModel("m");
  client.close();
  client.close();

  await assert.rejects(running, CancelledError);
  await assert.rejects(client.complete("Hi"), CancelledError);
  assert.throws(() => client.stream("Hi"), CancelledError);
});

test("a target that is none is a mistake of the caller's", () => {
  assert.throws(() => new Client(""), TypeError);
});

test("many calls under one signal are no leak, and all are cancelled by it", async () => {
  const warnings: Error[] = [];
  process.on("warning", (warning) => warnings.push(warning));
  await using client = new Client(NOWHERE);
  const stopping = new AbortController();
  const calls = Array.from({ length: 20 }, () => client.getModel("m", { signal: stopping.signal }));
  stopping.abort("enough");

  for (const call of calls) {
    await assert.rejects(call, (error) => error instanceof CancelledError && error.cause === "enough");
  }
  await setImmediate();
  assert.deepEqual(warnings, []);
});

test("nothing is read past a message that is none", async () => {
  const method = { ...CompletionServiceService.complete, responseSerialize: (bytes: Buffer) => bytes };
  const server = new Server();
  server.addService(
    { complete: method },
    {
      complete(call: ServerWritableStream<unknown, Buffer>) {
        // A text "a", none, a text "b", and the last event.
        for (const message of ["42031a0161", "42ff", "42031a0162", "8a0100"]) {
          call.write(Buffer.from(message, "hex"));
        }
        call.end();
      },
    },
  );
  const port = await promisify(server.bindAsync.bind(server))("127.0.0.1:0", ServerCredentials.createInsecure());
  await using client = new Client(`127.0.0.1:${port}`);
  const stream = client.stream("Hi");

  await assert.rejects(stream.completion(), InternalError);
  await assert.rejects(stream.completion(), InternalError);

  assert.equal(text(stream.snapshot()), "a");
  server.forceShutdown();
});
