// Every case through the official `openai` SDK for Node.
//
//     node drive.mjs URL KEY CALLER     prints one JSON object: results by case

import OpenAI, { APIError } from "openai";

const HELLO = [{ role: "user", content: "Say hello. \u2028 é" }];
const TOOLS = [
  ["get_weather", "weather", "city"],
  ["get_time", "time", "zone"],
].map(([name, what, argument]) => ({
  type: "function",
  function: {
    name,
    description: `Find the ${what}.`,
    parameters: { type: "object", properties: { [argument]: { type: "string" } }, required: [argument] },
  },
}));
const CITY = {
  type: "json_schema",
  json_schema: {
    name: "City",
    strict: true,
    schema: {
      type: "object",
      properties: { city: { title: "City", type: "string" }, people: { title: "People", type: "integer" } },
      required: ["city", "people"],
      title: "City",
      additionalProperties: false,
    },
  },
};
const SILENCE_S = 0.2;

const [url, apiKey, caller] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const usageOf = (usage) => usage && [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];
const callsOf = (calls) =>
  (calls ?? []).map((call) => [call.id, call.type, call.function.name, call.function.arguments]);

function whole(answer) {
  return {
    object: answer.object,
    id: answer.id.slice(0, 9),
    choices: answer.choices.map((choice) => ({
      index: choice.index,
      role: choice.message.role,
      text: choice.message.content,
      refusal: choice.message.refusal,
      calls: callsOf(choice.message.tool_calls),
      finish: choice.finish_reason,
    })),
    usage: usageOf(answer.usage) ?? null,
  };
}

async function streamed(stream) {
  const choices = new Map();
  const usages = [];
  const heads = new Map();
  for await (const chunk of stream) {
    const head = [chunk.object, chunk.id.slice(0, 9)];
    heads.set(JSON.stringify([...head, chunk.id, chunk.created, chunk.model]), head);
    if (chunk.usage) usages.push(usageOf(chunk.usage));
    for (const choice of chunk.choices) {
      if (!choices.has(choice.index)) {
        choices.set(choice.index, { index: choice.index, roles: [], text: "", calls: [], finish: [] });
      }
      const built = choices.get(choice.index);
      if (choice.delta.role) built.roles.push(choice.delta.role);
      built.text += choice.delta.content ?? "";
      for (const call of choice.delta.tool_calls ?? []) {
        if (call.index === built.calls.length) built.calls.push([call.id, call.type, call.function.name, ""]);
        built.calls[call.index][3] += call.function.arguments ?? "";
      }
      if (choice.finish_reason) built.finish.push(choice.finish_reason);
    }
  }
  const found = [...choices.values()].sort((a, b) => a.index - b.index);
  return { heads: [...heads.values()], choices: found, usages };
}

function failed(error) {
  const told = {
    class: error.constructor.name,
    code: error.code ?? null,
    param: error.param ?? null,
    type: error.type ?? null,
  };
  if (error.status !== undefined) {
    told.status = error.status;
    told.message = error.error?.message ?? null;
    told.has_id = Boolean(error.requestID);
  }
  return told;
}

const create = (name, options = {}, using = client) =>
  using.chat.completions.create({ model: `${name}/${caller}`, messages: HELLO, ...options });

async function refused(name, options = {}, using = client) {
  try {
    await create(name, options, using);
  } catch (error) {
    if (error instanceof APIError) return failed(error);
    throw error;
  }
  return "no error";
}

async function logprobs(stream) {
  const tokens = [];
  for await (const chunk of stream) {
    for (const choice of chunk.choices) tokens.push(...(choice.logprobs?.content ?? []));
  }
  return tokens;
}

const CASES = {
  plain: async () => whole(await create("plain")),
  stream: async () => streamed(await create("plain", { stream: true })),
  include_usage: async () =>
    streamed(await create("plain", { stream: true, stream_options: { include_usage: true } })),
  tools: async () => whole(await create("tools", { tools: TOOLS, tool_choice: "required" })),
  tools_streamed: async () =>
    streamed(await create("tools", { tools: TOOLS, parallel_tool_calls: true, stream: true })),
  accumulated: async () => {
    const stream = client.chat.completions.stream({ model: `tools/${caller}`, messages: HELLO, tools: TOOLS });
    return whole(await stream.finalChatCompletion());
  },
  conversation: async () => {
    const asked = (await create("tools", { tools: TOOLS })).choices[0].message;
    const results = asked.tool_calls.map((call) => ({
      role: "tool",
      tool_call_id: call.id,
      content: `${call.function.name}: fine`,
    }));
    return whole(await create("conversation", { messages: [...HELLO, asked, ...results], tools: TOOLS }));
  },
  structured: async () => {
    const answer = await client.chat.completions.parse({
      model: `structured/${caller}`,
      messages: HELLO,
      response_format: CITY,
    });
    const { parsed } = answer.choices[0].message;
    return parsed && [parsed.city, parsed.people];
  },
  choices: async () => whole(await create("choices", { n: 2 })),
  choices_streamed: async () => streamed(await create("choices", { n: 2, stream: true })),
  logprobs: async () =>
    (await create("logprobs", { logprobs: true, top_logprobs: 2 })).choices[0].logprobs.content,
  logprobs_streamed: async () =>
    logprobs(await create("logprobs", { logprobs: true, top_logprobs: 2, stream: true })),
  line_ends: async () => (await create("line-ends")).choices[0].message.content,
  line_ends_streamed: async () =>
    (await streamed(await create("line-ends", { stream: true }))).choices[0].text,
  bad_parameter: () => refused("plain", { temperature: 9 }),
  wrong_key: () => refused("plain", {}, client.withOptions({ apiKey: "wrong" })),
  unknown_model: () => refused("plain", { model: `plian/${caller}` }),
  too_large: () => refused("plain", { messages: [{ role: "user", content: "x".repeat(33 * 1024 * 1024) }] }),
  refused_upstream: () => refused("limited"),
  throttled: async () => {
    try {
      await create("throttled", {}, client.withOptions({ maxRetries: 0 }));
    } catch (error) {
      return { ...failed(error), "retry-after": error.headers?.get("retry-after") };
    }
    return "no error";
  },
  failing: () => refused("failing"),
  failing_streamed: () => refused("failing", { stream: true }),
  silent: () =>
    refused("silent", {
      trunkline: { constraints: { first_token_timeout_s: SILENCE_S, max_attempts: 1 } },
    }),
  broken: async () => {
    let text = "";
    try {
      for await (const chunk of await create("broken", { stream: true })) {
        text += chunk.choices[0].delta.content ?? "";
      }
    } catch (error) {
      return { text, ...failed(error) };
    }
    return "no error";
  },
  early_close: async () => {
    for await (const chunk of await create("early-close", { stream: true })) {
      if (chunk.choices[0].delta.content) return chunk.choices[0].delta.content;
    }
    return "no text";
  },
  models: async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return ids.filter((id) => id.endsWith(`/${caller}`)).sort();
  },
  model: async () => {
    const found = await client.models.retrieve(`plain/${caller}`);
    return [found.id, found.object, found.owned_by];
  },
  request_id: async () => {
    const asked = await client.chat.completions.create(
      { model: `plain/${caller}`, messages: HELLO },
      { headers: { "x-request-id": `asked-${caller}` } },
    );
    const unasked = await create("plain");
    return [asked._request_id, unasked._request_id.slice(0, 4)];
  },
};

const results = {};
for (const [name, run] of Object.entries(CASES)) {
  try {
    results[name] = await run();
  } catch (error) {
    // No case expects it: the test that compares shows it.
    results[name] = `${error?.constructor?.name}: ${error?.message} ${error?.cause ?? ""}`;
  }
}
console.log(JSON.stringify(results));
