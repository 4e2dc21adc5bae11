import assert from "node:assert/strict";
import { test } from "node:test";
import {
  argumentsOf,
  assistant,
  developer,
  document,
  functionTool,
  image,
  jsonObject,
  jsonSchema,
  system,
  text,
  toolCalls,
  toolResult,
  turns,
  user,
} from "@trunkline/client";
import { Choice, Completion, Message, Part, ResponseFormat, Role, ToolCall } from "@trunkline/client/v1";
import { answer, callPart, said } from "./events.js";

const SCHEMA = { type: "object", properties: { z: { type: "integer" }, ä: {} } };
const CALL = ToolCall.create({ id: "a", name: "f", argumentsJson: "{}" });

function textPart(value: string): Part {
  return Part.create({ content: { $case: "text", value } });
}

test("each role has its function", () => {
  assert.deepEqual(system("s"), Message.create({ role: Role.SYSTEM, parts: [textPart("s")] }));
  assert.deepEqual(developer("d"), Message.create({ role: Role.DEVELOPER, parts: [textPart("d")] }));
  assert.deepEqual(
    user(["u", textPart("v")], { name: "Ann" }),
    Message.create({ role: Role.USER, parts: [textPart("u"), textPart("v")], name: "Ann" }),
  );
  assert.deepEqual(assistant(["a", CALL]), said("a", callPart("a", "f", "{}")));
});

test("a result names the call that it answers", () => {
  const result = (toolName: string) =>
    Message.create({
      role: Role.TOOL,
      parts: [
        {
          content: {
            $case: "toolResult",
            value: { toolCallId: "a", toolName, parts: [textPart("r")], isError: true },
          },
        },
      ],
    });

  assert.deepEqual(toolResult(CALL, "r", { isError: true }), result("f"));
  assert.deepEqual(toolResult("a", "r", { isError: true }), result(""));
});

test("media are given by address or by bytes", () => {
  const data = new TextEncoder().encode("%PDF");

  assert.deepEqual(
    image({ url: "https://example.com/a.png", detail: "low" }).content,
    Part.create({
      content: {
        $case: "image",
        value: { source: { $case: "url", value: "https://example.com/a.png" }, detail: "low" },
      },
    }).content,
  );
  assert.deepEqual(
    document({ data, mimeType: "application/pdf", filename: "a.pdf" }).content,
    Part.create({
      content: {
        $case: "document",
        value: { source: { $case: "data", value: data }, mimeType: "application/pdf", filename: "a.pdf" },
      },
    }).content,
  );
});

for (const source of [{}, { url: "u", data: new Uint8Array(1), mimeType: "m" }, { data: new Uint8Array(1) }]) {
  test(`media that say too little or too much are refused: ${Object.keys(source)}`, () => {
    assert.throws(() => image(source as { url: string }), TypeError);
  });
}

test("a schema keeps the order of its keys", () => {
  const tool = functionTool("f", "Does.", SCHEMA, { strict: true });

  assert.deepEqual(
    [tool.name, tool.description, tool.parametersSchemaJson, tool.strict],
    ["f", "Does.", '{"type":"object","properties":{"z":{"type":"integer"},"ä":{}}}', true],
  );
});

test("an answer can be asked for as JSON", () => {
  const value = { name: "n", description: "d", schemaJson: JSON.stringify(SCHEMA), strict: true };

  assert.deepEqual(jsonObject(), ResponseFormat.create({ format: { $case: "jsonObject", value: {} } }));
  assert.deepEqual(
    jsonSchema("n", SCHEMA, { description: "d" }),
    ResponseFormat.create({ format: { $case: "jsonSchema", value } }),
  );
});

test("an answer is read by choice", () => {
  const completion = answer("a", callPart("1", "f", '{"x":1}'), "b", callPart("2", "g", ""));
  completion.choices.push(Choice.create({ index: 1, message: said("other") }));

  assert.deepEqual([text(completion), text(completion, 1), text(completion, 2)], ["ab", "other", ""]);
  assert.deepEqual(toolCalls(completion, 2), []);
  assert.deepEqual(
    toolCalls(completion).map((call) => [call.id, argumentsOf(call)]),
    [
      ["1", { x: 1 }],
      ["2", {}],
    ],
  );
});

test("arguments that were cut off are a SyntaxError", () => {
  assert.throws(() => argumentsOf({ ...CALL, argumentsJson: '{"x":' }), SyntaxError);
});

test("turns are those of server-side tools and then the answer", () => {
  const completion = { ...answer("done"), transcript: [assistant(CALL)] };

  assert.deepEqual(turns(completion), [assistant(CALL), said("done")]);
  assert.deepEqual(turns(Completion.create()), []);
});
