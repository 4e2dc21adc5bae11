// Panels through the official `openai` SDK for Node.
//
//     node drive_waymark.mjs URL KEY CALLER     prints one JSON object: results by case and route

import OpenAI, { APIError } from "openai";

const ROUTES = ["waymark-fast", "waymark-moa", "waymark-max"];
const TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Finds the weather.",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const CITY = {
  type: "json_schema",
  json_schema: {
    name: "City",
    strict: true,
    schema: {
      type: "object",
      properties: { city: { type: "string" }, people: { type: "integer" } },
      required: ["city", "people"],
      additionalProperties: false,
    },
  },
};
const VERSION = "2026-01-31";
const LIMITS = ["", "X-"].flatMap((prefix) =>
  ["Limit", "Remaining", "Reset"].map((name) => `${prefix}RateLimit-${name}`),
);

const [url, apiKey, caller] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const usageOf = (usage) => usage && [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];
const told = (headers) => ({
  route: headers.get("Speechify-Route"),
  version: headers.get("Speechify-Version"),
  limits: LIMITS.filter((name) => /^\d+$/.test(headers.get(name) ?? "")),
});

const asked = (kind, route, name, options = {}) => ({
  model: route,
  messages: [{ role: "user", content: `${kind} ${name}/${route}/${caller}` }],
  ...options,
});
const create = (kind, route, name, options = {}, request = {}) =>
  client.chat.completions.create(asked(kind, route, name, options), request).withResponse();

async function whole({ data: answer, response }) {
  const [choice] = answer.choices;
  return {
    ...told(response.headers),
    model: answer.model,
    text: choice.message.content,
    calls: (choice.message.tool_calls ?? []).map((call) => [call.id, call.function.name, call.function.arguments]),
    finish: choice.finish_reason,
    usage: usageOf(answer.usage),
    waymark: answer.waymark,
  };
}

async function streamed({ data: stream, response }) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const calls = [];
  let text = "";
  const finishes = [];
  for (const choice of chunks.flatMap((chunk) => chunk.choices)) {
    text += choice.delta.content ?? "";
    for (const call of choice.delta.tool_calls ?? []) {
      if (call.index === calls.length) calls.push([call.id, call.function.name, ""]);
      calls[call.index][2] += call.function.arguments ?? "";
    }
    if (choice.finish_reason) finishes.push(choice.finish_reason);
  }
  const last = chunks.pop();
  return {
    ...told(response.headers),
    models: [...new Set([...chunks, last].map((chunk) => chunk.model))].sort(),
    text,
    calls,
    finishes,
    usages: [...chunks, last].filter((chunk) => chunk.usage).map((chunk) => usageOf(chunk.usage)),
    early: chunks.filter((chunk) => "waymark" in chunk).length,
    waymark: last.waymark,
  };
}

async function refused(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return {
      class: error.constructor.name,
      status: error.status,
      code: error.code ?? null,
      param: error.param ?? null,
      type: error.type ?? null,
      message: error.error?.message ?? null,
      ...told(error.headers),
    };
  }
  return "no error";
}

const poor = (route) => (route === "waymark-fast" ? "refusal" : "different");
const versioned = (version) => ({ headers: { "Speechify-Version": version } });

const CASES = {
  plain: async (route) => whole(await create("plain", route, "plain")),
  stream: async (route) => streamed(await create("plain", route, "stream", { stream: true })),
  include_usage: async (route) =>
    streamed(await create("plain", route, "include_usage", { stream: true, stream_options: { include_usage: true } })),
  tools: async (route) => whole(await create("plain", route, "tools", { tools: TOOLS })),
  tools_streamed: async (route) =>
    streamed(await create("plain", route, "tools_streamed", { tools: TOOLS, stream: true })),
  structured: async (route) => {
    const answer = await client.chat.completions.parse(
      asked("plain", route, "structured", { response_format: CITY }),
    );
    const { parsed } = answer.choices[0].message;
    return [parsed && [parsed.city, parsed.people], answer.waymark];
  },
  accumulated: async (route) => {
    const stream = client.chat.completions.stream(asked("plain", route, "accumulated"));
    let text = "";
    stream.on("content", (piece) => (text += piece));
    const final = await stream.finalChatCompletion();
    return [text, final.choices[0].message.content];
  },
  escalated: async (route) => whole(await create(poor(route), route, "escalated")),
  escalated_streamed: async (route) =>
    streamed(await create(poor(route), route, "escalated_streamed", { stream: true })),
  version: async (route) => {
    const answers = [];
    for (const stream of [false, true]) {
      const { data, response } = await create("plain", route, `version-${stream}`, { stream }, versioned(VERSION));
      if (stream) for await (const _ of data);
      answers.push(response.headers.get("Speechify-Version"));
    }
    return answers;
  },
  bad_version: (route) => refused(() => create("plain", route, "bad_version", {}, versioned("latest"))),
  bad_version_streamed: (route) =>
    refused(() => create("plain", route, "bad_version_streamed", { stream: true }, versioned("2026-02-30"))),
  unknown: async (route) => {
    const { data } = await create("plain", route, "unknown", { service_hint: { lane: [1, null] } });
    return data.choices[0].finish_reason;
  },
};

const results = {};
for (const [name, run] of Object.entries(CASES)) {
  for (const route of ROUTES) {
    try {
      results[`${name}/${route}`] = await run(route);
    } catch (error) {
      // No case expects it: the test that compares shows it.
      results[`${name}/${route}`] = `${error?.constructor?.name}: ${error?.message} ${error?.cause ?? ""}`;
    }
  }
}
console.log(JSON.stringify(results));
