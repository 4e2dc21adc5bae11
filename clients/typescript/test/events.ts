/** Events of a stream in a few words. */

import { Choice, Completion, FinishReason, Route } from "../src/v1/trunkline/v1/completion.js";
import { CompleteResponse } from "../src/v1/trunkline/v1/completion_event.js";
import { Message, Part, Role } from "../src/v1/trunkline/v1/message.js";

export function event(content: NonNullable<CompleteResponse["event"]>): CompleteResponse {
  return { ...CompleteResponse.create(), event: content };
}

export function started(completionId = "cmpl_1", requestId = "req_12345"): CompleteResponse {
  return event({ $case: "started", value: { completionId, requestId, conversationId: "", createTime: undefined } });
}

export function routed(hop = 0, model = "m"): CompleteResponse {
  return event({ $case: "routeSelected", value: { route: Route.create({ provider: "p", model, hop }) } });
}

export function textDelta(text: string, partIndex = 0, choiceIndex = 0): CompleteResponse {
  return event({ $case: "textDelta", value: { choiceIndex, partIndex, text, logprobs: [] } });
}

export function reasoningDelta(text: string, partIndex = 0): CompleteResponse {
  return event({ $case: "reasoningDelta", value: { choiceIndex: 0, partIndex, text, summary: false } });
}

export function callDelta(argumentsJson: string, partIndex = 0, id = "", name = ""): CompleteResponse {
  const value = { choiceIndex: 0, partIndex, toolCallIndex: 0, id, name, argumentsJson, providerState: undefined };
  return event({ $case: "toolCallDelta", value });
}

export function partCompleted(part: Part, partIndex = 0): CompleteResponse {
  return event({ $case: "partCompleted", value: { choiceIndex: 0, partIndex, part } });
}

export function finished(finishReason: FinishReason = FinishReason.STOP, choiceIndex = 0): CompleteResponse {
  return event({
    $case: "choiceFinished",
    value: { choiceIndex, finishReason, nativeFinishReason: "", stopSequence: "" },
  });
}

export function reset(hop = 0): CompleteResponse {
  return event({ $case: "streamReset", value: { hop, failedAttempt: undefined } });
}

export function completed(completion = Completion.create({ id: "cmpl_1" })): CompleteResponse {
  return event({ $case: "completed", value: { completion } });
}

export function callPart(id: string, name: string, argumentsJson: string): Part {
  return Part.create({ content: { $case: "toolCall", value: { id, name, argumentsJson } } });
}

export function said(...parts: (string | Part)[]): Message {
  return {
    ...Message.create(),
    role: Role.ASSISTANT,
    parts: parts.map((part) =>
      typeof part === "string" ? Part.create({ content: { $case: "text", value: part } }) : part,
    ),
  };
}

/** A whole completion of one choice. */
export function answer(...parts: (string | Part)[]): Completion {
  const choice = { ...Choice.create(), message: said(...parts), finishReason: FinishReason.STOP };
  return { ...Completion.create(), id: "cmpl_1", choices: [choice] };
}
