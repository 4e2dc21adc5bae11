/**
 * Makes the calls of the conformance cases with this client: a line of JSON in, a line of JSON out.
 *
 *     node --expose-gc build/conformance/runner.js
 *
 * It tells what came of a call and judges nothing: the cases, and what they expect, are in tests/conformance.
 */

import { readFileSync } from "node:fs";
import process, { stdin, stdout } from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type ClientReadableStream, Metadata } from "@grpc/grpc-js";
import {
  Client,
  Code,
  type CompletionStream,
  credentials,
  fold,
  functionTool,
  jsonSchema,
  onlyTool,
  text,
  toolCalls,
  toolResult,
  TrunklineError,
  turns,
  user,
} from "@trunkline/client";
import {
  CompleteRequest,
  CompleteResponse,
  Completion,
  CompletionServiceClient,
  CompletionSpec,
  Conversation,
  Job,
  Model,
  PreviewRouteResponse,
  StoredMessage,
  WatchJobResponse,
} from "@trunkline/client/v1";

// What a case says has the types of the arguments that it becomes, and is not checked here.
type Given = Record<string, any>;
type Seen = Record<string, unknown>;
type Codec<T> = { encode(message: T): { finish(): Uint8Array } };

const MOST_TURNS = 8;
const WARM_UP_STREAMS = 100;
const PROMPT = "Hi";
const RAW_REQUEST = CompleteRequest.create({ spec: { messages: [user(PROMPT)] } });

/** What each method does with a client, beside those of `Item`; what it sees before an error stays in `seen`. */
const METHODS: Record<string, (client: Client, call: Given, seen: Seen, options: Given) => Promise<void>> = {
  async complete(client, call, seen) {
    tell(seen, await client.complete(asked(call), optionsOf(call)));
  },

  async stream(client, call, seen) {
    const stream = streamed(client, call);
    const events: string[] = (seen["events"] = []);
    try {
      for await (const { event } of stream) {
        events.push(snakeCase(event?.$case ?? ""));
        if (call["read_delay_ms"]) {
          await sleep(call["read_delay_ms"]);
        }
        if (events.length === call["leave_after"]) {
          break;
        }
      }
    } finally {
      tell(seen, stream.snapshot());
    }
    if (call["then"] !== "snapshot") {
      tell(seen, await stream.completion());
    }
  },

  async text_deltas(client, call, seen) {
    const texts: string[] = (seen["texts"] = []);
    for await (const piece of streamed(client, call).textDeltas()) {
      texts.push(piece);
    }
  },

  async converse(client, call, seen) {
    const messages = [user(call["prompt"])];
    for (let turn = 0; turn < MOST_TURNS; turn++) {
      const answer = await client.complete(messages, optionsOf(call));
      tell(seen, answer);
      const calls = toolCalls(answer);
      if (calls.length === 0) {
        return;
      }
      messages.push(...turns(answer));
      for (const toolCall of calls) {
        const { text: said, is_error: isError } = call["results"][toolCall.name];
        messages.push(toolResult(toolCall, said, { isError }));
      }
    }
  },

  async fold(_client, call, seen) {
    tell(seen, fold(call["events"].map((event: string) => CompleteResponse.decode(fromBase64(event)))));
  },

  async abandon(client, call, seen) {
    let before = await live();
    for (let number = 0; number < call["count"]; number++) {
      if (number === WARM_UP_STREAMS) {
        before = await live();
      }
      let count = 0;
      for await (const _ of streamed(client, call)) {
        if (++count === call["leave_after"]) {
          break;
        }
      }
    }
    const after = await live();
    Object.assign(seen, { live_bytes: [before.bytes, after.bytes], threads: [before.handles, after.handles] });
  },

  async bench(client, call, seen, options) {
    const stub = new CompletionServiceClient(options["target"], credentials.createInsecure());
    const metadata = Metadata.fromHttp2Headers(options["metadata"]);
    const read = (): CompletionStream | ClientReadableStream<CompleteResponse> =>
      call["api"] === "client" ? client.stream(PROMPT) : stub.complete(RAW_REQUEST, metadata);
    const [began, used] = [performance.now(), process.cpuUsage()];
    let messages = 0;
    while (performance.now() - began < call["seconds"] * 1e3) {
      for await (const _ of read()) {
        messages++;
      }
    }
    const { user: userUs, system: systemUs } = process.cpuUsage(used);
    stub.close();
    Object.assign(seen, { messages, cpu_s: (userUs + systemUs) / 1e6 });
  },

  async preview_route(client, call, seen) {
    await list(seen, PreviewRouteResponse, once(client.previewRoute(asked(call), optionsOf(call))));
  },
  list_models: (client, call, seen) => list(seen, Model, client.listModels(optionsOf(call))),
  get_model: (client, call, seen) => list(seen, Model, once(client.getModel(call["model_id"], optionsOf(call)))),
  create_job: (client, call, seen) =>
    list(seen, Job, once(client.createJob(call["kind"], asked(call), optionsOf(call)))),
  get_job: (client, call, seen) => list(seen, Job, once(client.getJob(call["job_id"], optionsOf(call)))),
  list_jobs: (client, call, seen) => list(seen, Job, client.listJobs(optionsOf(call))),
  cancel_job: (client, call, seen) => list(seen, Job, once(client.cancelJob(call["job_id"], optionsOf(call)))),
  watch_job: (client, call, seen) =>
    list(
      seen,
      WatchJobResponse,
      client.watchJob(call["job_id"], { ...optionsOf(call), afterSequence: BigInt(call["after_sequence"] ?? 0) }),
    ),
  create_conversation: (client, call, seen) =>
    list(seen, Conversation, once(client.createConversation(optionsOf(call)))),
  get_conversation: (client, call, seen) =>
    list(seen, Conversation, once(client.getConversation(call["conversation_id"], optionsOf(call)))),
  list_conversations: (client, call, seen) => list(seen, Conversation, client.listConversations(optionsOf(call))),
  list_messages: (client, call, seen) =>
    list(seen, StoredMessage, client.listMessages(call["conversation_id"], optionsOf(call))),
  async delete_conversation(client, call, seen) {
    seen["items"] = [];
    await client.deleteConversation(call["conversation_id"], optionsOf(call));
  },
};

async function main(): Promise<void> {
  let number = 0;
  for await (const line of createInterface({ input: stdin })) {
    const { name, client, call } = JSON.parse(line);
    stdout.write(`${JSON.stringify({ name, ...(await outcome(apart(client, ++number), call)) })}\n`);
  }
  // Connections that linger are nobody's any more.
  process.exit(0);
}

/**
 * The same place under another name, with a name server that is not asked for an address: grpc-js keeps the tokens of
 * its retry throttling by target, for as long as the process lives, and the cases would use up each other's.
 */
function apart(options: Given, number: number): Given {
  const nameServer = `127.1.${number >> 8}.${number & 255}`;
  return { ...options, target: options["target"]?.replace(/^127\.0\.0\.1:/, `dns://${nameServer}/$&`) };
}

async function outcome(options: Given, call: Given): Promise<Seen> {
  const seen: Seen = {};
  const began = performance.now();
  try {
    const method = METHODS[call["method"]];
    if (method === undefined) {
      return { crash: `no method ${call["method"]}` };
    }
    await using client = new Client(options["target"] ?? "127.0.0.1:1", {
      apiKey: options["api_key"],
      tls: options["tls"],
      rootCertificates: options["root_certificates"] && readFileSync(options["root_certificates"]),
      allowInsecureKey: options["allow_insecure_key"],
      defaultTimeoutMs: options["default_timeout_s"] && options["default_timeout_s"] * 1e3,
      metadata: options["metadata"],
    });
    await method(client, call, seen, options);
    seen["error"] = null;
  } catch (error) {
    if (error instanceof TrunklineError) {
      seen["error"] = told(error);
    } else if (error instanceof TypeError) {
      seen["error"] = { family: "ArgumentError", message: error.message };
    } else {
      seen["crash"] = String(error);
    }
  }
  return { ...seen, elapsed_s: (performance.now() - began) / 1e3 };
}

function streamed(client: Client, call: Given): CompletionStream {
  const heartbeatS: number | undefined = call["heartbeat_interval_s"];
  const heartbeatInterval = heartbeatS !== undefined && {
    seconds: BigInt(Math.trunc(heartbeatS)),
    nanos: Math.round((heartbeatS % 1) * 1e9),
  };
  return client.stream(asked(call), {
    ...optionsOf(call),
    streamOptions: heartbeatInterval ? { heartbeatInterval } : undefined,
  });
}

/** A prompt or a whole spec. */
function asked(call: Given): any {
  if ("spec" in call) {
    return CompletionSpec.decode(fromBase64(call["spec"]));
  }
  return "prompt_chars" in call ? "x".repeat(call["prompt_chars"]) : call["prompt"];
}

/** The options of any method: those of the call, and those of the spec under their names here. */
function optionsOf(call: Given): Given {
  const { tools, json_schema: schema, tool_choice: choice, ...plain } = call["options"] ?? {};
  const options: Given = {};
  for (const [name, value] of Object.entries(plain)) {
    options[camelCase(name)] = value;
  }
  for (const name of [
    ...["idempotency_key", "request_id", "traceparent", "tracestate", "metadata"],
    ...["page_size", "callback_url", "title", "metadata_json"],
  ]) {
    if (name in call) {
      options[camelCase(name)] = call[name];
    }
  }
  if (tools) {
    options["tools"] = tools.map((tool: Given) => functionTool(tool["name"], tool["description"], tool["schema"]));
  }
  if (schema) {
    options["responseFormat"] = jsonSchema(schema["name"], schema["schema"]);
  }
  if (choice) {
    options["toolChoice"] = typeof choice === "string" ? choice : onlyTool(choice["tool_name"]);
  }
  if ("timeout_s" in call) {
    options["timeoutMs"] = call["timeout_s"] * 1e3;
  }
  if ("cancel_after_s" in call) {
    options["signal"] = AbortSignal.timeout(call["cancel_after_s"] * 1e3);
  }
  return options;
}

function tell(seen: Seen, completion: Completion): void {
  Object.assign(seen, {
    completion: toBase64(Completion, completion),
    text: text(completion),
    tool_calls: toolCalls(completion).map((call) => ({
      id: call.id,
      name: call.name,
      arguments_json: call.argumentsJson,
    })),
  });
}

async function list<T>(seen: Seen, codec: Codec<T>, messages: AsyncIterable<T>): Promise<void> {
  const items: string[] = (seen["items"] = []);
  for await (const message of messages) {
    items.push(toBase64(codec, message));
  }
}

async function* once<T>(message: Promise<T>): AsyncGenerator<T> {
  yield await message;
}

function told(error: TrunklineError): Given {
  return {
    // The names of the families are without the suffix that classes of errors have here.
    family: error.name === "InternalError" ? error.name : error.name.replace(/Error$/, ""),
    reason: error.reason,
    code: Code[error.code],
    message: error.message,
    request_id: error.requestId,
    retry_after_s: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1e3,
    provider: error.provider,
    retryable: error.retryable,
    field_violations: error.fieldViolations,
    metadata: error.metadata,
  };
}

/** Bytes of the heap that are in use, and what keeps the process alive: sockets, timers and the like. */
async function live(): Promise<{ bytes: number; handles: number }> {
  // What is done with a call that was cancelled takes some turns of the loop.
  await sleep(100);
  globalThis.gc?.();
  return { bytes: process.memoryUsage().heapUsed, handles: process.getActiveResourcesInfo().length };
}

function fromBase64(encoded: string): Uint8Array {
  return Buffer.from(encoded, "base64");
}

function toBase64<T>(codec: Codec<T>, message: T): string {
  return Buffer.from(codec.encode(message).finish()).toString("base64");
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camelCase(name: string): string {
  return name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}

await main();
