/** Building the contract's messages, and reading those that come back. */

import type { Choice, Completion } from "./v1/trunkline/v1/completion.js";
import { ResponseFormat, Tool, ToolChoice } from "./v1/trunkline/v1/completion_spec.js";
import { Media, Message, Part, Role, ToolCall, ToolResult } from "./v1/trunkline/v1/message.js";

/** What is said in one message: text, another part, or several of them in order. */
export type Content = string | Part | readonly (string | Part)[];

/** Where an image or a document is: at an address, or here, with its IANA media type. */
export type MediaSource =
  | { readonly url: string; readonly mimeType?: string }
  | { readonly data: Uint8Array; readonly mimeType: string };

/** A system message. */
export function system(content: Content): Message {
  return message(Role.SYSTEM, content);
}

/** A developer message: instructions that rank below the system's. */
export function developer(content: Content): Message {
  return message(Role.DEVELOPER, content);
}

/** A user's turn; `name` tells the authors of a chat of many apart. */
export function user(content: Content, { name = "" }: { readonly name?: string } = {}): Message {
  return { ...message(Role.USER, content), name };
}

/** A model's turn, replayed. For an answer of the gateway use {@link turns}, which keeps all of it. */
export function assistant(content: Content | ToolCall | readonly (string | Part | ToolCall)[]): Message {
  return message(Role.ASSISTANT, content);
}

/** The answer to one tool call, named by the call itself or its id; a message for each call. */
export function toolResult(
  call: ToolCall | string,
  content: Content,
  { isError = false }: { readonly isError?: boolean } = {},
): Message {
  const named = typeof call === "string" ? { toolCallId: call } : { toolCallId: call.id, toolName: call.name };
  const result = { ...ToolResult.create(named), parts: parts(content), isError };
  return message(Role.TOOL, part({ $case: "toolResult", value: result }));
}

/** An image; `detail` is auto, low or high. */
export function image(source: MediaSource & { readonly detail?: string }): Part {
  return part({ $case: "image", value: media(source) });
}

/** A document. */
export function document(source: MediaSource & { readonly filename?: string }): Part {
  return part({ $case: "document", value: media(source) });
}

/**
 * A tool that the caller runs.
 *
 * @param name - [a-zA-Z0-9_-]\{1,64\}
 * @param description - What the model is told about it.
 * @param schema - JSON Schema of the arguments, an object's; the order of its keys is kept.
 * @param options - `strict`: arguments must match the schema exactly, where a provider can promise that.
 */
export function functionTool(
  name: string,
  description: string,
  schema: object,
  { strict }: { readonly strict?: boolean | undefined } = {},
): Tool {
  return Tool.create({ name, description, parametersSchemaJson: JSON.stringify(schema), strict });
}

/** The model must call this tool. */
export function onlyTool(name: string): ToolChoice {
  return ToolChoice.create({ choice: { $case: "toolName", value: name } });
}

/** The answer is a JSON object, of any shape. */
export function jsonObject(): ResponseFormat {
  return ResponseFormat.create({ format: { $case: "jsonObject", value: {} } });
}

/** The answer is JSON that matches the schema. */
export function jsonSchema(
  name: string,
  schema: object,
  { description = "", strict = true }: { readonly description?: string; readonly strict?: boolean } = {},
): ResponseFormat {
  const value = { name, description, schemaJson: JSON.stringify(schema), strict };
  return ResponseFormat.create({ format: { $case: "jsonSchema", value } });
}

/** The text of one choice, all its text parts together; "" where it has none. */
export function text(completion: Completion, choiceIndex = 0): string {
  return contents(completion, choiceIndex)
    .map((content) => (content?.$case === "text" ? content.value : ""))
    .join("");
}

/** The calls that the caller is asked to run, in order; may be empty. */
export function toolCalls(completion: Completion, choiceIndex = 0): ToolCall[] {
  return contents(completion, choiceIndex).flatMap((content) => (content?.$case === "toolCall" ? [content.value] : []));
}

/**
 * The arguments of a call, decoded.
 *
 * @throws SyntaxError - What the model wrote is no JSON, as when its output was cut off at a length.
 */
export function argumentsOf(call: ToolCall): unknown {
  return JSON.parse(call.argumentsJson || "{}");
}

/**
 * What to append to the messages to go on: the turns of server-side tools, then the answer as it is.
 *
 * The answer's parts keep opaque state that some providers must get back byte for byte.
 */
export function turns(completion: Completion, choiceIndex = 0): Message[] {
  const answer = choice(completion, choiceIndex)?.message;
  return answer ? [...completion.transcript, answer] : [...completion.transcript];
}

function message(role: Role, content: Content | ToolCall | readonly (string | Part | ToolCall)[]): Message {
  return { ...Message.create(), role, parts: parts(content) };
}

function parts(content: string | Part | ToolCall | readonly (string | Part | ToolCall)[]): Part[] {
  const pieces: readonly (string | Part | ToolCall)[] = Array.isArray(content) ? content : [content];
  return pieces.map((piece) => {
    if (typeof piece === "string") {
      return part({ $case: "text", value: piece });
    }
    return "argumentsJson" in piece ? part({ $case: "toolCall", value: piece }) : piece;
  });
}

// Not Part.create: it copies what it is given, without the fields that this package does not know.
function part(content: NonNullable<Part["content"]>): Part {
  return { ...Part.create(), content };
}

function media(given: MediaSource & { readonly detail?: string; readonly filename?: string }): Media {
  if ("url" in given === "data" in given) {
    throw new TypeError("give either url or data");
  }
  if ("data" in given && !given.mimeType) {
    throw new TypeError("data needs its mimeType");
  }
  const { mimeType = "", detail = "", filename = "" } = given;
  const source =
    "url" in given ? { $case: "url" as const, value: given.url } : { $case: "data" as const, value: given.data };
  return Media.create({ source, mimeType, detail, filename });
}

function choice(completion: Completion, index: number): Choice | undefined {
  return completion.choices.find((each) => each.index === index);
}

function contents(completion: Completion, choiceIndex: number): Part["content"][] {
  return choice(completion, choiceIndex)?.message?.parts.map((each) => each.content) ?? [];
}
