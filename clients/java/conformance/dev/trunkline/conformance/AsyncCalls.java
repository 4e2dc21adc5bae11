package dev.trunkline.conformance;

import com.google.protobuf.MessageLite;
import dev.trunkline.AsyncCompletionStream;
import dev.trunkline.AsyncTrunklineClient;
import dev.trunkline.CompletionFolder;
import dev.trunkline.Messages;
import dev.trunkline.v1.CompleteRequest;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionServiceGrpc;
import dev.trunkline.v1.Message;
import io.grpc.ManagedChannel;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Predicate;

/** The calls with {@link AsyncTrunklineClient}. */
final class AsyncCalls implements Calls {
  private final AsyncTrunklineClient made;

  AsyncCalls(Order order) throws IOException {
    made = order.configure(AsyncTrunklineClient.builder(order.target())).build();
  }

  @Override
  public void close() {
    made.close();
  }

  @Override
  public void make(Order order, Seen seen) {
    AsyncTrunklineClient client = made.with(order.settings());
    switch (order.method()) {
      case "complete" -> {
        CompletableFuture<Completion> answer = client.complete(order.spec());
        cancelLater(order, () -> answer.cancel(true));
        seen.completion(answer.join());
      }
      case "stream" -> stream(order, client, seen);
      case "text_deltas" -> {
        seen.begin("texts");
        var reader = new Reader<String>(text -> seen.add("texts", text), text -> true);
        client.stream(order.spec()).textDeltas().subscribe(reader);
        reader.end.join();
      }
      case "converse" -> seen.completion(converse(order, client));
      case "fold" -> seen.completion(CompletionFolder.fold(order.events()));
      case "abandon" -> abandon(order, client, seen);
      case "bench" -> bench(order, client, seen);
      default -> {
        seen.begin("items");
        items(order, client, seen);
      }
    }
  }

  private static void stream(Order order, AsyncTrunklineClient client, Seen seen) {
    seen.begin("events");
    AsyncCompletionStream stream =
        order.has("heartbeat_interval_s")
            ? client.stream(order.spec(), order.streamOptions())
            : client.stream(order.spec());
    var reader =
        new Reader<CompleteResponse>(
            event -> {
              seen.event(event);
              pause(order.number("read_delay_ms"));
            },
            event -> seen.events() != order.number("leave_after"));
    stream.subscribe(reader);
    cancelLater(order, reader::cancel);
    try {
      // Where the subscription was cancelled, nobody but the answer tells of it.
      CompletableFuture.anyOf(reader.left, stream.completion()).join();
    } finally {
      seen.completion(stream.snapshot());
    }
  }

  private static Completion converse(Order order, AsyncTrunklineClient client) {
    List<Message> messages = new ArrayList<>(List.of(Messages.user(order.prompt())));
    Completion answer = client.complete(messages, order.options()).join();
    for (int turn = 1; turn < MOST_TURNS && !Messages.toolCalls(answer).isEmpty(); turn++) {
      order.nextTurns(answer).forEach(messages::add);
      answer = client.complete(messages, order.options()).join();
    }
    return answer;
  }

  private static void abandon(Order order, AsyncTrunklineClient client, Seen seen) {
    long[] before = Seen.live();
    for (int number = 0; number < order.number("count"); number++) {
      if (number == WARM_UP_STREAMS) {
        before = Seen.live();
      }
      var count = new Count();
      var reader =
          new Reader<CompleteResponse>(
              event -> count.value++, event -> count.value < order.number("leave_after"));
      client.stream(order.spec()).subscribe(reader);
      reader.left.join();
    }
    seen.live(before, Seen.live());
  }

  private static void bench(Order order, AsyncTrunklineClient client, Seen seen) {
    long endsAt = System.nanoTime() + order.duration("seconds").toNanos();
    double cpuSeconds = Seen.cpuSeconds();
    var messages = new Count();
    ManagedChannel channel = Calls.rawChannel(order);
    var stub = CompletionServiceGrpc.newStub(channel);
    CompleteRequest request = Calls.rawRequest(order);
    while (System.nanoTime() < endsAt) {
      if (order.text("api").equals("stub")) {
        var observer = new RawReader(messages);
        stub.complete(request, observer);
        observer.end.join();
      } else {
        var reader = new Reader<CompleteResponse>(event -> messages.value++, event -> true);
        client.stream(PROMPT).subscribe(reader);
        reader.end.join();
      }
    }
    seen.measured(messages.value, Seen.cpuSeconds() - cpuSeconds);
    channel.shutdownNow();
  }

  private static void items(Order order, AsyncTrunklineClient client, Seen seen) {
    int pageSize = (int) order.number("page_size");
    String jobId = order.text("job_id");
    String conversationId = order.text("conversation_id");
    switch (order.method()) {
      case "preview_route" -> seen.item(client.previewRoute(order.spec()).join());
      case "list_models" -> all(client.listModels(pageSize), seen);
      case "get_model" -> seen.item(client.getModel(order.text("model_id")).join());
      case "create_job" ->
          seen.item(
              client
                  .createJob(order.text("kind"), order.spec(), order.text("callback_url"))
                  .join());
      case "get_job" -> seen.item(client.getJob(jobId).join());
      case "list_jobs" -> all(client.listJobs(pageSize), seen);
      case "cancel_job" -> seen.item(client.cancelJob(jobId).join());
      case "watch_job" -> all(client.watchJob(jobId, order.number("after_sequence")), seen);
      case "create_conversation" ->
          seen.item(
              client.createConversation(order.text("title"), order.text("metadata_json")).join());
      case "get_conversation" -> seen.item(client.getConversation(conversationId).join());
      case "list_conversations" -> all(client.listConversations(pageSize), seen);
      case "list_messages" -> all(client.listMessages(conversationId, pageSize), seen);
      case "delete_conversation" -> client.deleteConversation(conversationId).join();
      default -> throw new UnsupportedOperationException(order.method());
    }
  }

  private static void all(Flow.Publisher<? extends MessageLite> items, Seen seen) {
    var reader = new Reader<MessageLite>(seen::item, item -> true);
    items.subscribe(reader);
    reader.end.join();
  }

  private static void cancelLater(Order order, Runnable cancel) {
    if (order.has("cancel_after_s")) {
      long delayMs = order.duration("cancel_after_s").toMillis();
      CompletableFuture.delayedExecutor(delayMs, TimeUnit.MILLISECONDS).execute(cancel);
    }
  }

  private static void pause(long delayMs) {
    try {
      Thread.sleep(delayMs);
    } catch (InterruptedException error) {
      throw new CompletionException(error);
    }
  }

  /** Counted in one thread after the other. */
  private static final class Count {
    private volatile long value;
  }

  /** Takes one after the other, until it has had enough. */
  private static final class Reader<T> implements Flow.Subscriber<T> {
    final CompletableFuture<Void> end = new CompletableFuture<>();
    final CompletableFuture<Void> left = new CompletableFuture<>();
    private final Consumer<T> take;
    private final Predicate<T> goOn;
    private volatile Flow.Subscription subscription;

    Reader(Consumer<T> take, Predicate<T> goOn) {
      this.take = take;
      this.goOn = goOn;
    }

    void cancel() {
      subscription.cancel();
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      this.subscription = subscription;
      subscription.request(1);
    }

    @Override
    public void onNext(T item) {
      take.accept(item);
      if (goOn.test(item)) {
        subscription.request(1);
      } else {
        left.complete(null);
        subscription.cancel();
      }
    }

    @Override
    public void onError(Throwable error) {
      end.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
      end.complete(null);
    }
  }

  private static final class RawReader implements StreamObserver<CompleteResponse> {
    final CompletableFuture<Void> end = new CompletableFuture<>();
    private final Count messages;

    RawReader(Count messages) {
      this.messages = messages;
    }

    @Override
    public void onNext(CompleteResponse event) {
      messages.value++;
    }

    @Override
    public void onError(Throwable error) {
      end.completeExceptionally(error);
    }

    @Override
    public void onCompleted() {
      end.complete(null);
    }
  }
}
