package dev.trunkline.examples;

import static dev.trunkline.Messages.arguments;
import static dev.trunkline.Messages.functionTool;
import static dev.trunkline.Messages.part;
import static dev.trunkline.Messages.system;
import static dev.trunkline.Messages.text;
import static dev.trunkline.Messages.toolCalls;
import static dev.trunkline.Messages.toolResult;
import static dev.trunkline.Messages.turns;
import static dev.trunkline.Messages.user;

import dev.trunkline.AsyncTrunklineClient;
import dev.trunkline.Messages;
import dev.trunkline.Reasons;
import dev.trunkline.SpecOptions;
import dev.trunkline.TrunklineException;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.Tool;
import dev.trunkline.v1.ToolCall;
import java.time.DateTimeException;
import java.time.LocalTime;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/**
 * Lets a model ask this program what time it is, as often as it wants to, and prints its answer.
 *
 * <pre>ToolConversation "What time is it in Oslo?" --target 127.0.0.1:50051 [--model MODEL] [--tls]
 * </pre>
 */
public final class ToolConversation {
  private static final int MOST_TURNS = 8;
  private static final Tool LOCAL_TIME =
      functionTool(
          "local_time",
          "The time of day at a place.",
          """
          {"type": "object",
           "properties": {"zone": {"type": "string", "description": "IANA zone, as Europe/Oslo"}},
           "required": ["zone"]}
          """);

  private final AsyncTrunklineClient client;
  private final String model;
  private final SpecOptions options;

  private ToolConversation(AsyncTrunklineClient client, String model) {
    this.client = client;
    this.model = model;
    options = SpecOptions.builder().model(model).tools(LOCAL_TIME).build();
  }

  /** Exit code 1 where the gateway answered with an error. */
  public static void main(String[] arguments) {
    var given = Options.of("What time is it in Oslo and in Tokyo?", arguments);
    try (var client = given.build(AsyncTrunklineClient.builder(given.target()))) {
      var conversation = new ToolConversation(client, given.model());
      System.out.println(conversation.answer(given.prompt()).join());
    } catch (CompletionException failed) {
      if (!(failed.getCause() instanceof TrunklineException error)) {
        throw failed;
      }
      System.err.println(error);
      System.exit(1);
    }
  }

  /** What the model says, with the tool if it can. */
  private CompletableFuture<String> answer(String question) {
    var messages = List.of(system("Use the tool for every time of day."), user(question));
    return goOn(messages, MOST_TURNS)
        .exceptionallyCompose(
            failed -> {
              if (failed.getCause() instanceof TrunklineException error
                  && error.getReason().equals(Reasons.CAPABILITY_UNSUPPORTED)) {
                System.err.println("Asked without the tool: " + error.getMessage());
                var plain = SpecOptions.builder().model(model).maxOutputTokens(100).build();
                return client.complete(question, plain).thenApply(Messages::text);
              }
              return CompletableFuture.failedFuture(failed);
            });
  }

  /** The model's last word. */
  private CompletableFuture<String> goOn(List<Message> messages, int turnsLeft) {
    if (turnsLeft == 0) {
      return CompletableFuture.completedFuture("(the model asked for tools to the end)");
    }
    return client
        .complete(messages, options)
        .thenCompose(
            answer -> {
              List<ToolCall> calls = toolCalls(answer);
              if (calls.isEmpty()) {
                return CompletableFuture.completedFuture(text(answer));
              }
              var more = new ArrayList<>(messages);
              more.addAll(turns(answer));
              calls.forEach(call -> more.add(run(call)));
              return goOn(more, turnsLeft - 1);
            });
  }

  /** The result of one call. What is wrong with it is told to the model, which can do better. */
  private static Message run(ToolCall call) {
    try {
      var zone = ZoneId.of(String.valueOf(arguments(call).get("zone")));
      return toolResult(call, LocalTime.now(zone).format(DateTimeFormatter.ofPattern("HH:mm")));
    } catch (IllegalArgumentException | DateTimeException error) {
      return toolResult(call, true, part("no such zone: " + error.getMessage()));
    }
  }
}
