import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { CancelledError, Client } from "@trunkline/client";

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
