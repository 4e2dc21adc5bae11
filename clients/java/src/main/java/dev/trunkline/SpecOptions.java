package dev.trunkline;

import dev.trunkline.v1.CachePolicy;
import dev.trunkline.v1.CompletionSpec;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.ReasoningEffort;
import dev.trunkline.v1.ResponseFormat;
import dev.trunkline.v1.RoutingConstraints;
import dev.trunkline.v1.RoutingIntent;
import dev.trunkline.v1.Tool;
import dev.trunkline.v1.ToolChoice;
import dev.trunkline.v1.ToolChoiceMode;
import dev.trunkline.v1.UnsupportedPolicy;
import java.util.List;
import java.util.Map;

/**
 * Options of one completion. What is not set is the server's to decide. Whoever needs more of the
 * contract than these passes a whole {@link CompletionSpec} instead, perhaps one begun by {@link
 * #spec(String)}.
 */
public final class SpecOptions {
  static final SpecOptions NONE = builder().build();

  private final CompletionSpec options;

  private SpecOptions(CompletionSpec options) {
    this.options = options;
  }

  public static Builder builder() {
    return new Builder();
  }

  /**
   * These options and one user turn, as the contract has them.
   *
   * @param prompt the user's words
   * @return a whole spec
   */
  public CompletionSpec spec(String prompt) {
    return spec(List.of(Messages.user(prompt)));
  }

  /**
   * These options and a conversation, as the contract has them.
   *
   * @param messages oldest first
   * @return a whole spec
   */
  public CompletionSpec spec(List<Message> messages) {
    return options.toBuilder().addAllMessages(messages).build();
  }

  /** Makes {@link SpecOptions}. */
  public static final class Builder {
    private final CompletionSpec.Builder spec = CompletionSpec.newBuilder();

    private Builder() {}

    /** "provider/model", a catalog id or alias, or a route. Empty: the router decides. */
    public Builder model(String model) {
      spec.setModel(model);
      return this;
    }

    /** A leading system message. */
    public Builder systemPrompt(String systemPrompt) {
      spec.setSystemPrompt(systemPrompt);
      return this;
    }

    /** 0 to 2. */
    public Builder temperature(double temperature) {
      spec.getSamplingBuilder().setTemperature(temperature);
      return this;
    }

    /** The share of probability that tokens are drawn from. */
    public Builder topP(double topP) {
      spec.getSamplingBuilder().setTopP(topP);
      return this;
    }

    /** The number of likeliest tokens that are drawn from. */
    public Builder topK(int topK) {
      spec.getSamplingBuilder().setTopK(topK);
      return this;
    }

    /** Ends the answer at this length. */
    public Builder maxOutputTokens(int maxOutputTokens) {
      spec.getSamplingBuilder().setMaxOutputTokens(maxOutputTokens);
      return this;
    }

    /** Ends the answer before any of these. */
    public Builder stop(String... sequences) {
      spec.getSamplingBuilder().addAllStop(List.of(sequences));
      return this;
    }

    /** Makes answers repeatable where a provider can. */
    public Builder seed(long seed) {
      spec.getSamplingBuilder().setSeed(seed);
      return this;
    }

    /** Against words that were said often. */
    public Builder frequencyPenalty(double penalty) {
      spec.getSamplingBuilder().setFrequencyPenalty(penalty);
      return this;
    }

    /** Against words that were said at all. */
    public Builder presencePenalty(double penalty) {
      spec.getSamplingBuilder().setPresencePenalty(penalty);
      return this;
    }

    /** How many choices the answer has, at most 8. */
    public Builder candidateCount(int candidateCount) {
      spec.getSamplingBuilder().setCandidateCount(candidateCount);
      return this;
    }

    /** Return the log probability of each token. */
    public Builder logprobs(boolean logprobs) {
      spec.getSamplingBuilder().setLogprobs(logprobs);
      return this;
    }

    /** And of so many that might have stood there. */
    public Builder topLogprobs(int topLogprobs) {
      spec.getSamplingBuilder().setTopLogprobs(topLogprobs);
      return this;
    }

    /** The provider's own word for it. */
    public Builder verbosity(String verbosity) {
      spec.getSamplingBuilder().setVerbosity(verbosity);
      return this;
    }

    /** What the model may call; see {@link Messages#functionTool}. */
    public Builder tools(Tool... tools) {
      spec.getToolOptionsBuilder().addAllTools(List.of(tools));
      return this;
    }

    /** Whether the model may or must call tools. */
    public Builder toolChoice(ToolChoiceMode mode) {
      spec.getToolOptionsBuilder().getChoiceBuilder().setMode(mode);
      return this;
    }

    /** Which tools the model may or must call; see {@link Messages#onlyTool}. */
    public Builder toolChoice(ToolChoice choice) {
      spec.getToolOptionsBuilder().setChoice(choice);
      return this;
    }

    /** May one turn hold several calls? */
    public Builder parallelToolCalls(boolean parallel) {
      spec.getToolOptionsBuilder().setParallelCalls(parallel);
      return this;
    }

    /** Model turns that may run server-side tools, 1 to 20. */
    public Builder maxHops(int maxHops) {
      spec.getToolOptionsBuilder().setMaxHops(maxHops);
      return this;
    }

    /** See {@link Messages#jsonObject} and {@link Messages#jsonSchema}. */
    public Builder responseFormat(ResponseFormat format) {
      spec.setResponseFormat(format);
      return this;
    }

    /** How long the model thinks. */
    public Builder reasoningEffort(ReasoningEffort effort) {
      spec.getReasoningBuilder().setEffort(effort);
      return this;
    }

    /** The most tokens that it thinks for. */
    public Builder reasoningBudgetTokens(int tokens) {
      spec.getReasoningBuilder().setBudgetTokens(tokens);
      return this;
    }

    /** Return reasoning parts and deltas. */
    public Builder includeReasoning(boolean include) {
      spec.getReasoningBuilder().setInclude(include);
      return this;
    }

    /** A mode of the gateway's configuration. */
    public Builder mode(String mode) {
      spec.setMode(mode);
      return this;
    }

    /** What the router is to look for. */
    public Builder intent(RoutingIntent intent) {
      spec.setIntent(intent);
      return this;
    }

    /** What the router must keep to. */
    public Builder constraints(RoutingConstraints constraints) {
      spec.setConstraints(constraints);
      return this;
    }

    /** Whether an answer may come from the cache. */
    public Builder cache(CachePolicy cache) {
      spec.setCache(cache);
      return this;
    }

    /** What happens to an option that a candidate cannot honour. */
    public Builder unsupportedPolicy(UnsupportedPolicy policy) {
      spec.setUnsupportedPolicy(policy);
      return this;
    }

    /** Empty: the server's default. "none": raw model output. */
    public Builder persona(String persona) {
      spec.setPersona(persona);
      return this;
    }

    /** In order of precedence. */
    public Builder skills(String... slugs) {
      spec.addAllSkills(List.of(slugs));
      return this;
    }

    /** Goes on with a conversation that the gateway keeps. */
    public Builder conversationId(String id) {
      spec.setConversationId(id);
      return this;
    }

    /** For attribution. */
    public Builder sessionId(String id) {
      spec.setSessionId(id);
      return this;
    }

    /** For attribution. */
    public Builder endUserId(String id) {
      spec.setEndUserId(id);
      return this;
    }

    /** The provider's own word for it. */
    public Builder serviceTier(String tier) {
      spec.setServiceTier(tier);
      return this;
    }

    /** Any JSON object, echoed byte for byte and kept in the audit log. Not the call's headers. */
    public Builder metadataJson(String json) {
      spec.setMetadataJson(json);
      return this;
    }

    /** For chargeback, at most 16. */
    public Builder labels(Map<String, String> labels) {
      spec.putAllLabels(labels);
      return this;
    }

    /** Provider id, or "*", to a JSON object of parameters that the contract does not model. */
    public Builder providerOptionsJson(Map<String, String> options) {
      spec.putAllProviderOptionsJson(options);
      return this;
    }

    public SpecOptions build() {
      return new SpecOptions(spec.build());
    }
  }
}
