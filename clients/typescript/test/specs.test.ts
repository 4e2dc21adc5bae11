import assert from "node:assert/strict";
import { test } from "node:test";
import { jsonObject, onlyTool, type SpecOptions, specFrom, system, user } from "@trunkline/client";
import {
  CompletionSpec,
  ReasoningEffort,
  RoutingConstraints,
  Tool,
  ToolChoiceMode,
  UnsupportedPolicy,
} from "@trunkline/client/v1";

test("options become a spec", () => {
  const tool = Tool.create({ name: "f" });

  const spec = specFrom([system("s"), user("Hi")], {
    model: "m",
    temperature: 0,
    topP: undefined,
    maxOutputTokens: 5,
    stop: ["."],
    seed: -3,
    tools: [tool],
    toolChoice: "required",
    parallelToolCalls: false,
    responseFormat: jsonObject(),
    reasoningEffort: "high",
    includeReasoning: true,
    constraints: RoutingConstraints.create({ maxAttempts: 1 }),
    unsupportedPolicy: UnsupportedPolicy.REJECT,
    labels: { team: "a" },
  });

  assert.deepEqual(
    spec,
    CompletionSpec.create({
      model: "m",
      messages: [system("s"), user("Hi")],
      sampling: { temperature: 0, maxOutputTokens: 5, stop: ["."], seed: -3n },
      toolOptions: {
        tools: [tool],
        choice: { choice: { $case: "mode", value: ToolChoiceMode.REQUIRED } },
        parallelCalls: false,
      },
      responseFormat: jsonObject(),
      reasoning: { effort: ReasoningEffort.HIGH, include: true },
      constraints: { maxAttempts: 1 },
      unsupportedPolicy: UnsupportedPolicy.REJECT,
      labels: { team: "a" },
    }),
  );
});

test("what is not said is not sent", () => {
  const spec = specFrom("Hi", { temperature: undefined, tools: undefined, reasoningEffort: undefined });

  assert.deepEqual(spec, CompletionSpec.create({ messages: [user("Hi")] }));
});

test("one tool can be asked for", () => {
  assert.deepEqual(specFrom("Hi", { toolChoice: onlyTool("f") }).toolOptions?.choice, onlyTool("f"));
});

test("a whole spec is taken as it is", () => {
  const spec = CompletionSpec.create({ model: "m" });

  assert.equal(specFrom(spec, {}), spec);
});

test("messages keep what this package does not know", () => {
  const message = { ...user("Hi"), _unknownFields: { 8002: [Uint8Array.of(1, 0)] } };

  const sent = CompletionSpec.decode(CompletionSpec.encode(specFrom([message], {})).finish());

  assert.deepEqual(Object.keys(sent.messages[0]?._unknownFields ?? {}), ["8002"]);
});

for (const [what, prompt, options] of [
  ["no prompt", undefined, {}],
  ["options beside a spec", CompletionSpec.create(), { model: "m" }],
  ["a mode of tools that is none", "Hi", { toolChoice: "sometimes" }],
  ["an effort that is none", "Hi", { reasoningEffort: "heroic" }],
  ["an inherited name", "Hi", { reasoningEffort: "toString" }],
  ["an unknown option", "Hi", { temprature: 0 }],
] as const) {
  test(`what makes no request is refused: ${what}`, () => {
    assert.throws(() => specFrom(prompt as string, options as SpecOptions), TypeError);
  });
}
