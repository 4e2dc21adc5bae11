package dev.trunkline.conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Parser;
import com.google.protobuf.util.Durations;
import dev.trunkline.CallSettings;
import dev.trunkline.ClientBuilder;
import dev.trunkline.Messages;
import dev.trunkline.SpecOptions;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionSpec;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.ReasoningEffort;
import dev.trunkline.v1.StreamOptions;
import dev.trunkline.v1.Tool;
import dev.trunkline.v1.ToolChoiceMode;
import io.grpc.Metadata;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** What one line of the input asks for. */
record Order(JsonObject client, JsonObject call) {
  // As it came: numbers keep their digits, and nothing is escaped that JSON does not want escaped.
  static final Gson JSON = new GsonBuilder().disableHtmlEscaping().create();

  static Order of(JsonObject line) {
    JsonElement client = line.get("client");
    return new Order(
        client == null ? new JsonObject() : client.getAsJsonObject(), line.getAsJsonObject("call"));
  }

  /** Sets a client's options; its target is given already. */
  <C> ClientBuilder<C> configure(ClientBuilder<C> builder) throws IOException {
    for (Map.Entry<String, JsonElement> option : client.entrySet()) {
      JsonElement value = option.getValue();
      switch (option.getKey()) {
        case "target" -> {}
        case "api_key" -> builder.apiKey(value.getAsString());
        case "tls" -> builder.tls(value.getAsBoolean());
        case "root_certificates" ->
            builder.rootCertificates(Files.readAllBytes(Path.of(value.getAsString())));
        case "allow_insecure_key" -> builder.allowInsecureKey(value.getAsBoolean());
        case "default_timeout_s" -> builder.defaultTimeout(seconds(value));
        case "metadata" -> texts(value).forEach(builder::header);
        default -> throw new UnsupportedOperationException("client option " + option.getKey());
      }
    }
    return builder;
  }

  /** Of a case that needs no gateway: nobody's. */
  String target() {
    return client.has("target") ? client.get("target").getAsString() : "127.0.0.1:1";
  }

  /** The client's headers, for calls that are made without it. */
  Metadata headers() {
    var headers = new Metadata();
    texts(client.get("metadata"))
        .forEach(
            (name, value) ->
                headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    return headers;
  }

  String method() {
    return call.get("method").getAsString();
  }

  boolean has(String name) {
    return call.has(name);
  }

  String text(String name) {
    return has(name) ? call.get(name).getAsString() : "";
  }

  long number(String name) {
    return has(name) ? call.get(name).getAsLong() : 0;
  }

  Duration duration(String name) {
    return seconds(call.get(name));
  }

  CallSettings settings() {
    var settings = CallSettings.builder();
    if (has("timeout_s")) {
      settings.timeout(duration("timeout_s"));
    }
    if (has("idempotency_key")) {
      settings.idempotencyKey(text("idempotency_key"));
    }
    if (has("metadata")) {
      texts(call.get("metadata")).forEach(settings::header);
    }
    if (has("request_id")) {
      settings.requestId(text("request_id"));
    }
    if (has("traceparent")) {
      settings.traceparent(text("traceparent"));
    }
    if (has("tracestate")) {
      settings.tracestate(text("tracestate"));
    }
    return settings.build();
  }

  CompletionSpec spec() {
    return has("spec") ? decoded(text("spec"), CompletionSpec.parser()) : options().spec(prompt());
  }

  String prompt() {
    return has("prompt_chars") ? "x".repeat((int) number("prompt_chars")) : text("prompt");
  }

  StreamOptions streamOptions() {
    return StreamOptions.newBuilder()
        .setHeartbeatInterval(Durations.fromNanos(duration("heartbeat_interval_s").toNanos()))
        .build();
  }

  SpecOptions options() {
    var options = SpecOptions.builder();
    if (has("options")) {
      call.getAsJsonObject("options")
          .entrySet()
          .forEach(option -> set(options, option.getKey(), option.getValue()));
    }
    return options.build();
  }

  List<CompleteResponse> events() {
    var events = new ArrayList<CompleteResponse>();
    call.getAsJsonArray("events")
        .forEach(event -> events.add(decoded(event.getAsString(), CompleteResponse.parser())));
    return events;
  }

  /** The answer, and what the tools that it calls have said. */
  Stream<Message> nextTurns(Completion answer) {
    JsonObject results = call.getAsJsonObject("results");
    Stream<Message> said =
        Messages.toolCalls(answer).stream()
            .map(
                called -> {
                  JsonObject result = results.getAsJsonObject(called.getName());
                  boolean isError = result.has("is_error") && result.get("is_error").getAsBoolean();
                  String text = result.get("text").getAsString();
                  return Messages.toolResult(called, isError, Messages.part(text));
                });
    return Stream.concat(Messages.turns(answer).stream(), said);
  }

  private static void set(SpecOptions.Builder options, String name, JsonElement value) {
    switch (name) {
      case "model" -> options.model(value.getAsString());
      case "system_prompt" -> options.systemPrompt(value.getAsString());
      case "temperature" -> options.temperature(value.getAsDouble());
      case "top_p" -> options.topP(value.getAsDouble());
      case "top_k" -> options.topK(value.getAsInt());
      case "max_output_tokens" -> options.maxOutputTokens(value.getAsInt());
      case "stop" -> options.stop(strings(value));
      case "seed" -> options.seed(value.getAsLong());
      case "candidate_count" -> options.candidateCount(value.getAsInt());
      case "tools" -> options.tools(tools(value));
      case "tool_choice" -> {
        if (value.isJsonObject()) {
          options.toolChoice(Messages.onlyTool(field(value, "tool_name").getAsString()));
        } else {
          options.toolChoice(ToolChoiceMode.valueOf("TOOL_CHOICE_MODE_" + upper(value)));
        }
      }
      case "parallel_tool_calls" -> options.parallelToolCalls(value.getAsBoolean());
      case "max_hops" -> options.maxHops(value.getAsInt());
      case "json_schema" ->
          options.responseFormat(
              Messages.jsonSchema(
                  field(value, "name").getAsString(), JSON.toJson(field(value, "schema"))));
      case "reasoning_effort" ->
          options.reasoningEffort(ReasoningEffort.valueOf("REASONING_EFFORT_" + upper(value)));
      case "reasoning_budget_tokens" -> options.reasoningBudgetTokens(value.getAsInt());
      case "include_reasoning" -> options.includeReasoning(value.getAsBoolean());
      case "mode" -> options.mode(value.getAsString());
      case "persona" -> options.persona(value.getAsString());
      case "skills" -> options.skills(strings(value));
      case "conversation_id" -> options.conversationId(value.getAsString());
      case "session_id" -> options.sessionId(value.getAsString());
      case "end_user_id" -> options.endUserId(value.getAsString());
      case "labels" -> options.labels(texts(value));
      case "metadata_json" -> options.metadataJson(value.getAsString());
      default -> throw new UnsupportedOperationException("option " + name);
    }
  }

  private static Tool[] tools(JsonElement tools) {
    return tools.getAsJsonArray().asList().stream()
        .map(
            tool ->
                Messages.functionTool(
                    field(tool, "name").getAsString(),
                    field(tool, "description").getAsString(),
                    JSON.toJson(field(tool, "schema"))))
        .toArray(Tool[]::new);
  }

  private static JsonElement field(JsonElement object, String name) {
    return Objects.requireNonNull(object.getAsJsonObject().get(name), name);
  }

  private static String upper(JsonElement word) {
    return word.getAsString().toUpperCase(Locale.ROOT);
  }

  private static String[] strings(JsonElement array) {
    return array.getAsJsonArray().asList().stream()
        .map(JsonElement::getAsString)
        .toArray(String[]::new);
  }

  private static Map<String, String> texts(JsonElement object) {
    return object.getAsJsonObject().entrySet().stream()
        .collect(Collectors.toMap(Map.Entry::getKey, text -> text.getValue().getAsString()));
  }

  private static Duration seconds(JsonElement number) {
    return Duration.ofNanos(Math.round(number.getAsDouble() * 1e9));
  }

  private static <T> T decoded(String base64, Parser<T> parser) {
    try {
      return parser.parseFrom(Base64.getDecoder().decode(base64));
    } catch (InvalidProtocolBufferException error) {
      throw new IllegalStateException(error);
    }
  }
}
