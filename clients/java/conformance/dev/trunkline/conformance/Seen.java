package dev.trunkline.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.MessageLite;
import com.sun.management.OperatingSystemMXBean;
import dev.trunkline.Messages;
import dev.trunkline.TrunklineException;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.ToolCall;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Base64;
import java.util.Locale;
import java.util.concurrent.CancellationException;

/** What came of one call, in the making: what was seen before an error stays. */
final class Seen {
  private static final OperatingSystemMXBean PROCESS =
      ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);

  private final JsonObject json = new JsonObject();

  Seen(String name) {
    json.addProperty("name", name);
  }

  JsonObject json() {
    return json;
  }

  /** Adds to a list, which is there from the first moment: {@link #begin}. */
  void add(String list, String item) {
    json.getAsJsonArray(list).add(item);
  }

  void begin(String list) {
    json.add(list, new JsonArray());
  }

  void event(CompleteResponse event) {
    boolean isKnown = event.getEventCase() != CompleteResponse.EventCase.EVENT_NOT_SET;
    add("events", isKnown ? event.getEventCase().name().toLowerCase(Locale.ROOT) : "");
  }

  int events() {
    return json.getAsJsonArray("events").size();
  }

  void item(MessageLite item) {
    add("items", encoded(item));
  }

  void completion(Completion completion) {
    json.addProperty("completion", encoded(completion));
    json.addProperty("text", Messages.text(completion));
    var calls = new JsonArray();
    for (ToolCall call : Messages.toolCalls(completion)) {
      var told = new JsonObject();
      told.addProperty("id", call.getId());
      told.addProperty("name", call.getName());
      told.addProperty("arguments_json", call.getArgumentsJson());
      calls.add(told);
    }
    json.add("tool_calls", calls);
  }

  void error(Throwable error) {
    json.add("error", told(error));
  }

  void crash(Throwable error) {
    json.addProperty("crash", error.toString());
  }

  void elapsed(Duration elapsed) {
    json.addProperty("elapsed_s", elapsed.toNanos() / 1e9);
  }

  void live(long[] before, long[] after) {
    json.add("live_bytes", pair(before[0], after[0]));
    json.add("threads", pair(before[1], after[1]));
  }

  void measured(long messages, double cpuSeconds) {
    json.addProperty("messages", messages);
    json.addProperty("cpu_s", cpuSeconds);
  }

  /** Bytes of the heap that are used, and threads. */
  static long[] live() {
    System.gc();
    System.gc();
    Runtime heap = Runtime.getRuntime();
    return new long[] {
      heap.totalMemory() - heap.freeMemory(), ManagementFactory.getThreadMXBean().getThreadCount()
    };
  }

  static double cpuSeconds() {
    return PROCESS.getProcessCpuTime() / 1e9;
  }

  private static JsonArray pair(long before, long after) {
    var pair = new JsonArray();
    pair.add(before);
    pair.add(after);
    return pair;
  }

  private static String encoded(MessageLite message) {
    return Base64.getEncoder().encodeToString(message.toByteArray());
  }

  private static JsonElement told(Throwable error) {
    var told = new JsonObject();
    if (error instanceof TrunklineException failure) {
      told.addProperty("family", family(failure));
      told.addProperty("reason", failure.getReason());
      told.addProperty("code", failure.getCode().name());
      told.addProperty("message", failure.getMessage());
      told.addProperty("request_id", failure.getRequestId());
      failure
          .getRetryAfter()
          .ifPresent(after -> told.addProperty("retry_after_s", after.getSeconds() + after.getNano() / 1e9));
      told.addProperty("provider", failure.getProvider());
      told.addProperty("retryable", failure.isRetryable());
      told.add("field_violations", Order.JSON.toJsonTree(failure.getFieldViolations()));
      told.add("metadata", Order.JSON.toJsonTree(failure.getMetadata()));
    } else if (error instanceof CancellationException) {
      // What a future says that was cancelled itself.
      told.addProperty("family", "Cancelled");
      told.addProperty("reason", "CANCELLED");
      told.addProperty("code", "CANCELLED");
    } else {
      told.addProperty("family", "ArgumentError");
      told.add("message", new JsonPrimitive(String.valueOf(error.getMessage())));
    }
    return told;
  }

  private static String family(TrunklineException failure) {
    String name = failure.getClass().getSimpleName().replaceFirst("Exception$", "");
    return name.equals("Internal") ? "InternalError" : name;
  }
}
