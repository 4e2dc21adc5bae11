import assert from "node:assert/strict";
import { test } from "node:test";
import { CompletionFolder, fold } from "@trunkline/client";
import {
  Artifact,
  Attempt,
  Choice,
  CompleteResponse,
  Completion,
  FinishReason,
  Part,
  Route,
  ServerToolCall,
  ServerToolState,
  Usage,
} from "@trunkline/client/v1";
import {
  answer,
  callDelta,
  callPart,
  completed,
  event,
  finished,
  partCompleted,
  reasoningDelta,
  reset,
  routed,
  said,
  started,
  textDelta,
} from "./events.js";

const STATE = { provider: "p", model: "", data: Uint8Array.of(0, 1) };

function reasoningPart(text: string, providerState?: typeof STATE): Part {
  return Part.create({ content: { $case: "reasoning", value: { text } }, providerState });
}

/** As it is on the wire, where two messages are equal that differ in what they were made of. */
function bytes(completion: Completion): string {
  return Buffer.from(Completion.encode(completion).finish()).toString("hex");
}

function assertFolded(events: CompleteResponse[], expected: Completion): void {
  const folded = fold(events);

  assert.deepEqual(bytes(folded), bytes(expected), JSON.stringify(folded.choices));
}

function ofChoice(...parts: (string | Part)[]): Completion {
  return { ...Completion.create(), choices: [{ ...Choice.create(), message: said(...parts) }] };
}

test("no events are an empty completion", () => {
  assertFolded([], Completion.create());
});

test("interleaved kinds of parts keep their order", () => {
  assertFolded(
    [
      reasoningDelta("Hm", 0),
      textDelta("A", 1),
      reasoningDelta("m.", 0),
      callDelta('{"x":', 2, "a", "f"),
      textDelta("B", 1),
      callDelta("1}", 2),
      textDelta("C", 10),
    ],
    ofChoice(reasoningPart("Hmm."), "AB", callPart("a", "f", '{"x":1}'), "C"),
  );
});

test("choices are folded apart", () => {
  const choice = (index: number, text: string, finishReason: FinishReason) =>
    Choice.create({ index, message: said(text), finishReason });

  assertFolded(
    [textDelta("B", 0, 1), textDelta("A"), finished(FinishReason.LENGTH, 1), textDelta("b", 0, 1), finished()],
    Completion.create({ choices: [choice(0, "A", FinishReason.STOP), choice(1, "Bb", FinishReason.LENGTH)] }),
  );
});

test("a completed part takes the place of its deltas", () => {
  const whole = { ...callPart("a", "f", '{"x": 1}'), providerState: STATE };

  assertFolded([callDelta('{"x', 0, "a", "f"), partCompleted(whole)], ofChoice(whole));
});

test("state alone joins what the deltas said, or an empty text", () => {
  const state = Part.create({ providerState: STATE });
  const text = (value: string) => Part.create({ content: { $case: "text", value }, providerState: STATE });

  assertFolded([reasoningDelta("Hm"), partCompleted(state)], ofChoice(reasoningPart("Hm", STATE)));
  assertFolded([partCompleted(state)], ofChoice(text("")));
});

test("a completed part that leaves its text out means what was said", () => {
  assertFolded(
    [reasoningDelta("Hm"), partCompleted(reasoningPart("", STATE))],
    ofChoice(reasoningPart("Hm", STATE)),
  );
});

test("a reset forgets its hop and no other", () => {
  assertFolded(
    [
      routed(0),
      textDelta("kept", 0),
      routed(1),
      textDelta("lost", 1),
      event({ $case: "artifact", value: Artifact.create({ id: "lost" }) }),
      finished(FinishReason.LENGTH),
      reset(1),
      routed(1, "other"),
      textDelta("again", 1),
    ],
    { ...ofChoice("kept", "again"), route: Route.create({ provider: "p", model: "other", hop: 1 }) },
  );
});

test("the last event fills in and wins but need not repeat messages", () => {
  const folder = new CompletionFolder();
  const final = Completion.create({
    id: "cmpl_2",
    choices: [{ finishReason: FinishReason.STOP, nativeFinishReason: "end" }],
    usage: { outputTokens: 7 },
  });

  for (const each of [started("cmpl_1"), textDelta("Hé"), completed(final)]) {
    assert.equal(folder.isCompleted, false);
    folder.feed(each);
  }

  assert.equal(folder.isCompleted, true);
  assert.equal(
    bytes(folder.completion()),
    bytes(
      Completion.create({
        id: "cmpl_2",
        requestId: "req_12345",
        choices: [{ message: said("Hé"), finishReason: FinishReason.STOP, nativeFinishReason: "end" }],
        usage: { outputTokens: 7 },
      }),
    ),
  );
});

test("messages that the last event repeats are not doubled", () => {
  const artifact = Artifact.create({ id: "a" });
  const whole = { ...answer("Hé"), artifacts: [artifact] };

  assertFolded([textDelta("Hé"), event({ $case: "artifact", value: artifact }), completed(whole)], whole);
});

test("a choice that only the last event knows is taken", () => {
  assertFolded([completed(answer("cached"))], answer("cached"));
});

test("reports are gathered", () => {
  const [attempt, other] = [Attempt.create({ id: "1" }), Attempt.create({ id: "2" })];
  const call = (fields: object) =>
    event({ $case: "serverToolCall", value: ServerToolCall.create({ id: "t", ...fields }) });

  assertFolded(
    [
      started(),
      event({ $case: "attemptFailed", value: { attempt, willFailover: true } }),
      event({ $case: "streamReset", value: { hop: 0, failedAttempt: attempt } }),
      call({ name: "search", state: ServerToolState.STARTED }),
      call({ state: ServerToolState.SUCCEEDED }),
      event({ $case: "usageUpdate", value: { usage: Usage.create({ outputTokens: 1 }) } }),
      event({
        $case: "interrupted",
        value: {
          route: undefined,
          usage: Usage.create({ inputTokens: 5 }),
          attempts: [attempt, other],
          error: undefined,
        },
      }),
    ],
    Completion.create({
      id: "cmpl_1",
      requestId: "req_12345",
      attempts: [attempt, other],
      serverToolCalls: [{ id: "t", name: "search", state: ServerToolState.SUCCEEDED }],
      usage: { inputTokens: 5 },
    }),
  );
});

test("what was folded is a copy", () => {
  const folder = new CompletionFolder();
  folder.feed(completed(answer("Hé")));

  folder.completion().choices[0]!.message!.parts = [];

  assert.equal(bytes(folder.completion()), bytes(answer("Hé")));
});

test("what this package does not know is kept, and events among it are let through", () => {
  const unknown = CompleteResponse.decode(Uint8Array.of(0xa2, 0x38, 0x02, 0x08, 0x01));
  const newer = { ...answer("Hé"), _unknownFields: { 8002: [Uint8Array.of(1, 0)] } };

  const folded = fold([unknown, textDelta("Hé"), finished(99 as FinishReason), completed(newer)]);

  assert.equal(unknown.event, undefined);
  assert.deepEqual(Object.keys(folded._unknownFields ?? {}), ["8002"]);
});
