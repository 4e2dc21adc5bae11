// Theo's endpoints in OpenAI's format, through the official `openai` SDK for Node.
//
//     node drive_theo.mjs URL KEY     prints one JSON object: results by case

import OpenAI, { APIError } from "openai";

const HELLO = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Say hello. \u2028 é" },
];
// Of `theo_metadata`, what is the same however the tests run.
const STEADY = ["mode", "resolved_mode", "tools_used", "artifacts", "engine", "cost_cents"];

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/api/v1`, apiKey, maxRetries: 0 });
const stranger = client.withOptions({ apiKey: "x" });
const create = (body) => client.chat.completions.create(body);

const metadataOf = (told) =>
  Object.fromEntries(STEADY.map((name) => [name, told.theo_metadata[name]]));
const usageOf = (usage) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];

function whole(answer) {
  const [choice] = answer.choices;
  return {
    object: answer.object,
    id: answer.id.slice(0, 9),
    model: answer.model,
    text: choice.message.content,
    finish: choice.finish_reason,
    usage: usageOf(answer.usage),
    metadata: metadataOf(answer),
  };
}

async function streamed(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const choices = chunks.flatMap((chunk) => chunk.choices);
  const heads = new Set(
    chunks.map((chunk) => JSON.stringify([chunk.object, chunk.id.slice(0, 9), chunk.model])),
  );
  return {
    heads: [...heads].map((head) => JSON.parse(head)),
    text: choices.map((choice) => choice.delta.content ?? "").join(""),
    finishes: choices.map((choice) => choice.finish_reason).filter(Boolean),
    usages: chunks.filter((chunk) => chunk.usage).map((chunk) => usageOf(chunk.usage)),
    metadata: metadataOf(chunks.at(-1)),
  };
}

async function conversation() {
  const turn = { model: "theo-1-auto", messages: [{ role: "user", content: "How many?" }] };
  const first = await create({ ...turn, conversation_id: "new" });
  const name = first.theo_metadata.conversation_id;
  const second = await create({ ...turn, conversation_id: name });
  return [
    name.slice(0, 5),
    first.choices[0].message.content,
    second.choices[0].message.content,
    second.theo_metadata.conversation_id === name,
  ];
}

async function refusal(ask) {
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return {
      class: error.constructor.name,
      status: error.status,
      code: error.code,
      type: error.type,
      message: error.error.message,
    };
  }
  throw new Error("no error");
}

async function models() {
  const found = [];
  for await (const model of client.models.list()) found.push(model.id);
  return found;
}

const asked = { model: "theo-1-reason", messages: HELLO };
const native = { prompt: "Say hello.", mode: "code", format: "openai", persona: "none" };
const results = {
  whole: whole(await create({ ...asked, n: 7, max_tokens: 5, user: "u1" })),
  stream: await streamed(await create({ ...asked, stream: true })),
  include_usage: await streamed(
    await create({ ...asked, stream: true, stream_options: { include_usage: true } }),
  ),
  prompt: whole(await client.post("/completions", { body: native })),
  conversation: await conversation(),
  models: await models(),
  wrong_key: await refusal(() => stranger.chat.completions.create(asked)),
  empty: await refusal(() => create({ model: "theo-1-auto", messages: HELLO.slice(0, 1) })),
  research: await refusal(() => create({ model: "theo-1-research", messages: HELLO })),
  lost: await refusal(() => create({ ...asked, conversation_id: "conv_none" })),
};
console.log(JSON.stringify(results));
