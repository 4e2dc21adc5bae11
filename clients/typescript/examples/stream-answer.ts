/**
 * Streams one answer to the terminal, then says who gave it and what it took.
 *
 *     node build/examples/stream-answer.js "Why is the sky blue?" --target 127.0.0.1:50051
 *
 * The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
 */

import { env, exit, stderr, stdout } from "node:process";
import { parseArgs } from "node:util";
import { Client, TrunklineError } from "@trunkline/client";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: "string", default: "127.0.0.1:50051" },
    model: { type: "string", default: "" }, // Empty: the gateway decides.
    tls: { type: "boolean", default: false },
  },
});
const [prompt = "What is the capital of France? Answer in one sentence."] = positionals;

try {
  await using client = new Client(values.target, { apiKey: env["TRUNKLINE_API_KEY"], tls: values.tls });
  await using stream = client.stream(prompt, { model: values.model, temperature: 0 });
  for await (const piece of stream.textDeltas()) {
    stdout.write(piece);
  }
  const { route, usage } = await stream.completion();
  stdout.write(`\n\n${route?.provider}/${route?.model}, ${usage?.outputTokens} output tokens\n`);
} catch (error) {
  if (!(error instanceof TrunklineError)) {
    throw error;
  }
  stderr.write(`\n${error}\n`);
  exit(1);
}
