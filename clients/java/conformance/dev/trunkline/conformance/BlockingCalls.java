package dev.trunkline.conformance;

import com.google.protobuf.MessageLite;
import dev.trunkline.CompletionFolder;
import dev.trunkline.Messages;
import dev.trunkline.TrunklineClient;
import dev.trunkline.v1.CompleteRequest;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionServiceGrpc;
import dev.trunkline.v1.DeleteConversationResponse;
import dev.trunkline.v1.Message;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** The calls with {@link TrunklineClient}. */
final class BlockingCalls implements Calls {
  private final TrunklineClient made;

  BlockingCalls(Order order) throws IOException {
    made = order.configure(TrunklineClient.builder(order.target())).build();
  }

  @Override
  public void close() {
    made.close();
  }

  @Override
  public void make(Order order, Seen seen) throws InterruptedException {
    Thread reader = Thread.currentThread();
    var isOver = new CompletableFuture<Void>();
    if (order.has("cancel_after_s")) {
      isOver
          .orTimeout(order.duration("cancel_after_s").toMillis(), TimeUnit.MILLISECONDS)
          .exceptionally(
              tooLong -> {
                reader.interrupt();
                return null;
              });
    }
    try {
      dispatch(order, made.with(order.settings()), seen);
    } finally {
      isOver.complete(null);
      Thread.interrupted();
    }
  }

  private static void dispatch(Order order, TrunklineClient client, Seen seen)
      throws InterruptedException {
    switch (order.method()) {
      case "complete" -> seen.completion(client.complete(order.spec()));
      case "stream" -> stream(order, client, seen);
      case "text_deltas" -> textDeltas(order, client, seen);
      case "converse" -> seen.completion(converse(order, client));
      case "fold" -> seen.completion(CompletionFolder.fold(order.events()));
      case "abandon" -> abandon(order, client, seen);
      case "bench" -> bench(order, client, seen);
      default -> {
        seen.begin("items");
        try (Stream<? extends MessageLite> items = items(order, client)) {
          items.forEach(seen::item);
        }
      }
    }
  }

  private static void stream(Order order, TrunklineClient client, Seen seen)
      throws InterruptedException {
    seen.begin("events");
    try (var stream =
        order.has("heartbeat_interval_s")
            ? client.stream(order.spec(), order.streamOptions())
            : client.stream(order.spec())) {
      try {
        for (CompleteResponse event : stream) {
          seen.event(event);
          Thread.sleep(order.number("read_delay_ms"));
          if (seen.events() == order.number("leave_after")) {
            return;
          }
        }
      } finally {
        seen.completion(stream.snapshot());
      }
      if (!order.text("then").equals("snapshot")) {
        seen.completion(stream.completion());
      }
    }
  }

  private static void textDeltas(Order order, TrunklineClient client, Seen seen) {
    seen.begin("texts");
    try (var stream = client.stream(order.spec())) {
      stream.textDeltas().forEach(text -> seen.add("texts", text));
    }
  }

  private static Completion converse(Order order, TrunklineClient client) {
    List<Message> messages = new ArrayList<>(List.of(Messages.user(order.prompt())));
    Completion answer = client.complete(messages, order.options());
    for (int turn = 1; turn < MOST_TURNS && !Messages.toolCalls(answer).isEmpty(); turn++) {
      order.nextTurns(answer).forEach(messages::add);
      answer = client.complete(messages, order.options());
    }
    return answer;
  }

  private static void abandon(Order order, TrunklineClient client, Seen seen) {
    long[] before = Seen.live();
    for (int number = 0; number < order.number("count"); number++) {
      if (number == WARM_UP_STREAMS) {
        before = Seen.live();
      }
      long left = order.number("leave_after");
      try (var stream = client.stream(order.spec())) {
        for (CompleteResponse event : stream) {
          if (--left == 0) {
            break;
          }
        }
      }
    }
    seen.live(before, Seen.live());
  }

  private static void bench(Order order, TrunklineClient client, Seen seen) {
    long endsAt = System.nanoTime() + order.duration("seconds").toNanos();
    double cpuSeconds = Seen.cpuSeconds();
    long messages = 0;
    ManagedChannel channel = Calls.rawChannel(order);
    var stub = CompletionServiceGrpc.newBlockingStub(channel);
    CompleteRequest request = Calls.rawRequest(order);
    boolean isRaw = order.text("api").equals("stub");
    while (System.nanoTime() < endsAt) {
      Iterator<CompleteResponse> events =
          isRaw ? stub.complete(request) : client.stream(PROMPT).iterator();
      while (events.hasNext()) {
        events.next();
        messages++;
      }
    }
    seen.measured(messages, Seen.cpuSeconds() - cpuSeconds);
    channel.shutdownNow();
  }

  private static Stream<? extends MessageLite> items(Order order, TrunklineClient client) {
    int pageSize = (int) order.number("page_size");
    String jobId = order.text("job_id");
    String conversationId = order.text("conversation_id");
    return switch (order.method()) {
      case "preview_route" -> Stream.of(client.previewRoute(order.spec()));
      case "list_models" -> client.listModels(pageSize);
      case "get_model" -> Stream.of(client.getModel(order.text("model_id")));
      case "create_job" ->
          Stream.of(client.createJob(order.text("kind"), order.spec(), order.text("callback_url")));
      case "get_job" -> Stream.of(client.getJob(jobId));
      case "list_jobs" -> client.listJobs(pageSize);
      case "cancel_job" -> Stream.of(client.cancelJob(jobId));
      case "watch_job" -> client.watchJob(jobId, order.number("after_sequence"));
      case "create_conversation" ->
          Stream.of(client.createConversation(order.text("title"), order.text("metadata_json")));
      case "get_conversation" -> Stream.of(client.getConversation(conversationId));
      case "list_conversations" -> client.listConversations(pageSize);
      case "list_messages" -> client.listMessages(conversationId, pageSize);
      case "delete_conversation" -> {
        client.deleteConversation(conversationId);
        yield Stream.<DeleteConversationResponse>empty();
      }
      default -> throw new UnsupportedOperationException(order.method());
    };
  }
}
