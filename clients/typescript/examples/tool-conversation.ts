/**
 * Lets a model ask this program what time it is, as often as it wants to, and prints its answer. Where no model of the
 * gateway has tools, as with the embedded one alone, it says so and asks without.
 *
 *     node build/examples/tool-conversation.js "What time is it in Oslo and in Tokyo?" --target 127.0.0.1:50051
 *
 * The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
 */

import { env, exit, stderr, stdout } from "node:process";
import { parseArgs } from "node:util";
import {
  argumentsOf,
  Client,
  functionTool,
  Reason,
  system,
  text,
  toolCalls,
  toolResult,
  TrunklineError,
  turns,
  user,
} from "@trunkline/client";
import type { Message, ToolCall } from "@trunkline/client/v1";

const MOST_TURNS = 8;
const LOCAL_TIME = functionTool("local_time", "The time of day at a place.", {
  type: "object",
  properties: { zone: { type: "string", description: "IANA zone, as Europe/Oslo" } },
  required: ["zone"],
});

/** The result of one call. What is wrong with it is told to the model, which can do better. */
function run(call: ToolCall): Message {
  try {
    const { zone } = argumentsOf(call) as { zone: string };
    return toolResult(call, new Date().toLocaleTimeString("en-GB", { timeZone: zone, timeStyle: "short" }));
  } catch (error) {
    return toolResult(call, `no such zone: ${error}`, { isError: true });
  }
}

/** The model's last word on the question. */
async function converse(client: Client, question: string, model: string): Promise<string> {
  const messages = [system("Use the tool for every time of day."), user(question)];
  for (let turn = 0; turn < MOST_TURNS; turn++) {
    const answer = await client.complete(messages, { model, tools: [LOCAL_TIME] });
    const calls = toolCalls(answer);
    if (calls.length === 0) {
      return text(answer);
    }
    messages.push(...turns(answer), ...calls.map(run));
  }
  return "(the model asked for tools to the end)";
}

/** What the model says, with the tool if it can. */
async function answer(client: Client, question: string, model: string): Promise<string> {
  try {
    return await converse(client, question, model);
  } catch (error) {
    if (!(error instanceof TrunklineError && error.reason === Reason.CAPABILITY_UNSUPPORTED)) {
      throw error;
    }
    stderr.write(`Asked without the tool: ${error.message}\n`);
    return text(await client.complete(question, { model, maxOutputTokens: 100 }));
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: "string", default: "127.0.0.1:50051" },
    model: { type: "string", default: "" }, // Empty: the gateway decides.
    tls: { type: "boolean", default: false },
  },
});
const [question = "What time is it in Oslo and in Tokyo?"] = positionals;

try {
  await using client = new Client(values.target, { apiKey: env["TRUNKLINE_API_KEY"], tls: values.tls });
  stdout.write(`${await answer(client, question, values.model)}\n`);
} catch (error) {
  if (!(error instanceof TrunklineError)) {
    throw error;
  }
  stderr.write(`${error}\n`);
  exit(1);
}
