/** From a caller's words to the contract's CompletionSpec. */

import { user } from "./messages.js";
import {
  CompletionSpec,
  ReasoningEffort,
  ReasoningOptions,
  SamplingOptions,
  type Tool,
  ToolChoice,
  ToolChoiceMode,
  ToolOptions,
} from "./v1/trunkline/v1/completion_spec.js";
import type { Message } from "./v1/trunkline/v1/message.js";

/** One user turn as text, or a whole conversation, oldest message first. */
export type Prompt = string | readonly Message[];

const TOOL_CHOICES = {
  auto: ToolChoiceMode.AUTO,
  none: ToolChoiceMode.NONE,
  required: ToolChoiceMode.REQUIRED,
} as const;

const EFFORTS = {
  none: ReasoningEffort.NONE,
  minimal: ReasoningEffort.MINIMAL,
  low: ReasoningEffort.LOW,
  medium: ReasoningEffort.MEDIUM,
  high: ReasoningEffort.HIGH,
  xhigh: ReasoningEffort.XHIGH,
  max: ReasoningEffort.MAX,
} as const;

type Options<Fields> = {
  [Name in keyof Fields as Exclude<Name, "_unknownFields">]?: Fields[Name] | undefined;
};

/**
 * Options of one completion: the fields of `CompletionSpec` and `SamplingOptions`, and those of tools and reasoning
 * under shorter names. What is left out, or undefined, is the server's to decide.
 */
export interface SpecOptions
  extends Options<Omit<CompletionSpec, "messages" | "sampling" | "toolOptions" | "reasoning">>,
    Options<Omit<SamplingOptions, "seed">> {
  seed?: number | bigint | undefined;
  tools?: readonly Tool[] | undefined;
  toolChoice?: keyof typeof TOOL_CHOICES | ToolChoice | undefined;
  parallelToolCalls?: boolean | undefined;
  /** Model turns that may run server-side tools, 1 to 20. */
  maxHops?: number | undefined;
  reasoningEffort?: keyof typeof EFFORTS | undefined;
  reasoningBudgetTokens?: number | undefined;
  /** Return reasoning parts and deltas. */
  includeReasoning?: boolean | undefined;
}

/**
 * The spec that a call's arguments stand for: a whole one as it is, or one made of a prompt and options.
 *
 * @throws TypeError - Options came beside a whole spec, or one is unknown or has no such value, or there is no prompt.
 */
export function specFrom(prompt: Prompt | CompletionSpec, options: SpecOptions): CompletionSpec {
  if (typeof prompt === "string") {
    return specFromOptions([user(prompt)], options);
  }
  if (isConversation(prompt)) {
    return specFromOptions([...prompt], options);
  }
  if (typeof prompt !== "object" || !("messages" in prompt)) {
    throw new TypeError("give a prompt, messages or a spec");
  }
  if (Object.keys(options).length > 0) {
    throw new TypeError("a spec is complete: give no options beside it");
  }
  return prompt;
}

function specFromOptions(messages: Message[], options: SpecOptions): CompletionSpec {
  const {
    // Of SamplingOptions, whose names they are.
    temperature,
    topP,
    topK,
    maxOutputTokens,
    stop,
    seed,
    frequencyPenalty,
    presencePenalty,
    candidateCount,
    logprobs,
    topLogprobs,
    logitBias,
    verbosity,
    // Of ToolOptions.
    tools,
    toolChoice,
    parallelToolCalls,
    maxHops,
    // Of ReasoningOptions.
    reasoningEffort,
    reasoningBudgetTokens,
    includeReasoning,
    ...others
  } = options;
  const empty = CompletionSpec.create();
  for (const name of Object.keys(others)) {
    if (!(name in empty)) {
      throw new TypeError(`unknown option: ${name}`);
    }
  }
  return {
    ...(given(empty, others) ?? empty),
    messages,
    sampling: given(SamplingOptions.create(), {
      temperature,
      topP,
      topK,
      maxOutputTokens,
      stop,
      seed: seed === undefined ? undefined : BigInt(seed),
      frequencyPenalty,
      presencePenalty,
      candidateCount,
      logprobs,
      topLogprobs,
      logitBias,
      verbosity,
    }),
    toolOptions: given(ToolOptions.create(), {
      tools: tools && [...tools],
      choice: typeof toolChoice === "string" ? modeChoice(toolChoice) : toolChoice,
      parallelCalls: parallelToolCalls,
      maxHops,
    }),
    reasoning: given(ReasoningOptions.create(), {
      effort: reasoningEffort && named(EFFORTS, reasoningEffort, "reasoningEffort"),
      budgetTokens: reasoningBudgetTokens,
      include: includeReasoning,
    }),
  };
}

/** A message with the fields that have a value, or none where none has. */
function given<T extends object>(empty: T, fields: { [Name in keyof T]?: T[Name] | undefined }): T | undefined {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined);
  return set.length > 0 ? { ...empty, ...Object.fromEntries(set) } : undefined;
}

function modeChoice(mode: keyof typeof TOOL_CHOICES): ToolChoice {
  return ToolChoice.create({ choice: { $case: "mode", value: named(TOOL_CHOICES, mode, "toolChoice") } });
}

function named<Name extends string, Value>(values: Readonly<Record<Name, Value>>, name: Name, option: string): Value {
  if (!Object.hasOwn(values, name)) {
    throw new TypeError(`${option} is one of ${Object.keys(values).join(", ")}`);
  }
  return values[name];
}

function isConversation(prompt: Prompt | CompletionSpec): prompt is readonly Message[] {
  return Array.isArray(prompt);
}
