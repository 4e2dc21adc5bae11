/**
 * Folding the events of one stream into the Completion that a unary call would have returned.
 *
 * The last event of a stream need not repeat what the events before it said, so the messages are put together here:
 * deltas by choice and part, a completed part in place of its deltas, the content of a hop forgotten when it is reset.
 * What the last event does say wins, field by field. No I/O: events in, one message out.
 */

import { isDeepStrictEqual } from "node:util";
import {
  Attempt,
  Choice,
  Completion,
  Route,
  ServerToolCall,
  type TokenLogprob,
  Usage,
} from "./v1/trunkline/v1/completion.js";
import type { ChoiceFinished, CompleteResponse, PartCompleted } from "./v1/trunkline/v1/completion_event.js";
import { type Artifact, Message, Part, ProviderState, Reasoning, Role, ToolCall } from "./v1/trunkline/v1/message.js";

type Content = NonNullable<Part["content"]>;
type Kind = Content["$case"];

/** The completion that these events tell, complete or not. */
export function fold(events: Iterable<CompleteResponse>): Completion {
  const folder = new CompletionFolder();
  for (const event of events) {
    folder.feed(event);
  }
  return folder.completion();
}

/** Takes the events of one stream in order; those of a newer contract are let through. */
export class CompletionFolder {
  readonly #report = Completion.create();
  readonly #choices = new Map<number, ChoiceFold>();
  #artifacts: { readonly hop: number; readonly artifact: Artifact }[] = [];
  #final: Completion | undefined;
  #hop = 0;

  /** Has the event come that ends every whole answer? */
  get isCompleted(): boolean {
    return this.#final !== undefined;
  }

  /** The model turn, from 0, that content belongs to now. */
  get hop(): number {
    return this.#hop;
  }

  /** Takes the next event. It is not copied, so nobody may change it afterwards. */
  feed({ event }: CompleteResponse): void {
    switch (event?.$case) {
      case "textDelta": {
        const part = this.#part(event.value, "text");
        part.said += event.value.text;
        part.logprobs.push(...event.value.logprobs);
        break;
      }
      case "reasoningDelta":
        this.#part(event.value, "reasoning").reason(event.value.text, event.value.summary);
        break;
      case "refusalDelta":
        this.#part(event.value, "refusal").said += event.value.text;
        break;
      case "toolCallDelta":
        this.#part(event.value, "toolCall").call(event.value);
        break;
      case "partCompleted":
        this.#completePart(event.value);
        break;
      case "choiceFinished":
        this.#choice(event.value.choiceIndex).finished = { hop: this.#hop, how: event.value };
        break;
      case "routeSelected":
        this.#report.route = event.value.route ?? Route.create();
        this.#hop = this.#report.route.hop;
        break;
      case "streamReset":
        this.#forget(event.value.hop);
        this.#addAttempt(event.value.failedAttempt);
        break;
      case "artifact":
        this.#artifacts.push({ hop: this.#hop, artifact: event.value });
        break;
      case "completed":
        this.#final = event.value.completion ?? Completion.create();
        break;
      default:
        this.#note(event);
    }
  }

  /** The answer as far as it is known, as a copy: whole once `isCompleted`. */
  completion(): Completion {
    const choices = new Map([...this.#choices].map(([index, choice]) => [index, choice.value(index)]));
    for (const final of this.#final?.choices ?? []) {
      choices.set(final.index, finalChoice(choices.get(final.index), final));
    }
    const folded = { ...this.#report, artifacts: this.#artifacts.map(({ artifact }) => artifact) };
    const whole = {
      ...(this.#final ? overlay(Completion, folded, this.#final) : folded),
      choices: [...choices.values()].sort((one, other) => one.index - other.index),
    };
    return Completion.decode(Completion.encode(whole).finish());
  }

  /** Takes an event that reports about the answer and holds no part of it. */
  #note(event: CompleteResponse["event"]): void {
    const report = this.#report;
    switch (event?.$case) {
      case "started":
        report.id = event.value.completionId;
        report.requestId = event.value.requestId;
        report.conversationId = event.value.conversationId;
        report.createTime = event.value.createTime ?? report.createTime;
        break;
      case "attemptFailed":
        this.#addAttempt(event.value.attempt);
        break;
      case "skillsActivated":
        report.skills.push(...event.value.skills);
        break;
      case "genuiMeta":
        report.genui = event.value;
        break;
      case "serverToolCall":
        this.#noteServerToolCall(event.value);
        break;
      case "usageUpdate": // Cumulative, so the last one wins.
        report.usage = event.value.usage ?? Usage.create();
        break;
      case "interrupted":
        report.route = event.value.route ?? report.route;
        report.usage = event.value.usage ?? report.usage;
        event.value.attempts.forEach((attempt) => this.#addAttempt(attempt));
        break;
    }
  }

  #choice(index: number): ChoiceFold {
    let choice = this.#choices.get(index);
    if (choice === undefined) {
      choice = new ChoiceFold();
      this.#choices.set(index, choice);
    }
    return choice;
  }

  #part({ choiceIndex, partIndex }: { choiceIndex: number; partIndex: number }, kind: Kind): PartFold {
    const { parts } = this.#choice(choiceIndex);
    let part = parts.findLast((each) => each.index === partIndex && each.kind === kind);
    if (part === undefined) {
      part = new PartFold(partIndex, kind, this.#hop);
      parts.push(part);
    }
    return part;
  }

  #completePart(completed: PartCompleted): void {
    const part = completed.part ?? Part.create();
    // Opaque state alone belongs to what the deltas began; if to nothing, to an empty text.
    const begun = () => this.#choice(completed.choiceIndex).parts.find(({ index }) => index === completed.partIndex);
    this.#part(completed, part.content?.$case ?? begun()?.kind ?? "text").complete(part);
  }

  #forget(hop: number): void {
    this.#hop = hop;
    this.#artifacts = this.#artifacts.filter((made) => made.hop !== hop);
    for (const choice of this.#choices.values()) {
      choice.forget(hop);
    }
  }

  #addAttempt(attempt: Attempt = Attempt.create()): void {
    // The same failure may be told twice: when it happened, and by the reset or interruption it led to.
    const known = [Attempt.create(), ...this.#report.attempts];
    if (!known.some((other) => isDeepStrictEqual(other, attempt))) {
      this.#report.attempts.push(attempt);
    }
  }

  #noteServerToolCall(call: ServerToolCall): void {
    const calls = this.#report.serverToolCalls;
    const place = calls.findIndex(({ id }) => id === call.id);
    const known = calls[place];
    if (known === undefined) {
      calls.push(call);
    } else {
      calls[place] = overlay(ServerToolCall, known, call);
    }
  }
}

/** One part so far: what was said of it, until its final value is known. */
class PartFold {
  said = "";
  readonly logprobs: TokenLogprob[] = [];
  readonly #known: Part;

  constructor(
    readonly index: number,
    readonly kind: Kind,
    readonly hop: number,
  ) {
    this.#known = { ...Part.create(), content: begun(kind) };
  }

  reason(text: string, summary: boolean): void {
    this.said += text;
    if (this.#known.content?.$case === "reasoning") {
      this.#known.content.value.summary = summary;
    }
  }

  /** Id and name are on the first delta only. */
  call({ id, name, argumentsJson }: { id: string; name: string; argumentsJson: string }): void {
    this.said += argumentsJson;
    if (this.#known.content?.$case === "toolCall") {
      const known = this.#known.content.value;
      known.id = id || known.id;
      known.name = name || known.name;
    }
  }

  complete({ content, providerState, citations, _unknownFields }: Part): void {
    const known = this.#known;
    known.content = content ? mergedContent(known.content, content) : known.content;
    known.providerState = providerState
      ? overlay(ProviderState, known.providerState ?? ProviderState.create(), providerState)
      : known.providerState;
    known.citations.push(...citations);
    known._unknownFields = { ...known._unknownFields, ..._unknownFields };
  }

  /** A final value that leaves the text out means the one that was said. */
  value(): Part {
    const content = this.#known.content;
    switch (content?.$case) {
      case "text":
      case "refusal":
        return { ...this.#known, content: { $case: content.$case, value: content.value || this.said } };
      case "reasoning": {
        const value = { ...content.value, text: content.value.text || this.said };
        return { ...this.#known, content: { $case: "reasoning", value } };
      }
      case "toolCall": {
        const value = { ...content.value, argumentsJson: content.value.argumentsJson || this.said };
        return { ...this.#known, content: { $case: "toolCall", value } };
      }
      default:
        return this.#known;
    }
  }
}

/** One choice so far. Parts are found by index and kind, and `finished` comes with its hop. */
class ChoiceFold {
  parts: PartFold[] = [];
  finished: { readonly hop: number; readonly how: ChoiceFinished } | undefined;

  forget(hop: number): void {
    this.parts = this.parts.filter((part) => part.hop !== hop);
    if (this.finished?.hop === hop) {
      this.finished = undefined;
    }
  }

  value(index: number): Choice {
    const parts = this.parts.toSorted((one, other) => one.index - other.index || (one.kind < other.kind ? -1 : 1));
    const { finishReason, nativeFinishReason, stopSequence } = this.finished?.how ?? Choice.create();
    return {
      index,
      finishReason,
      nativeFinishReason,
      stopSequence,
      message: { ...Message.create(), role: Role.ASSISTANT, parts: parts.map((part) => part.value()) },
      logprobs: parts.flatMap((part) => part.logprobs),
    };
  }
}

function begun(kind: Kind): Content | undefined {
  switch (kind) {
    case "text":
    case "refusal":
      return { $case: kind, value: "" };
    case "reasoning":
      return { $case: kind, value: Reasoning.create() };
    case "toolCall":
      return { $case: kind, value: ToolCall.create() };
    default:
      return undefined;
  }
}

function mergedContent(known: Content | undefined, final: Content): Content {
  if (known?.$case === "reasoning" && final.$case === "reasoning") {
    return { $case: "reasoning", value: overlay(Reasoning, known.value, final.value) };
  }
  if (known?.$case === "toolCall" && final.$case === "toolCall") {
    return { $case: "toolCall", value: overlay(ToolCall, known.value, final.value) };
  }
  return final;
}

function finalChoice(folded: Choice | undefined, final: Choice): Choice {
  if (folded === undefined) {
    return final;
  }
  return overlay(Choice, folded, final.message?.parts.length ? final : { ...final, message: undefined });
}

/** `under`, with every field that `over` has set replaced by it. */
function overlay<T extends object>(type: { create(): T }, under: T, over: T): T {
  const empty = type.create();
  const set = Object.entries(over).filter(([name, value]) => !isDeepStrictEqual(value, empty[name as keyof T]));
  return { ...under, ...Object.fromEntries(set) };
}
