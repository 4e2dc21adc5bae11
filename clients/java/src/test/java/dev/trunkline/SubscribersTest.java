package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.MethodDescriptor;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Subscribers that do as they should not, futures that are ended by others, and closed clients. */
class SubscribersTest {
  private final List<String> cancelled = new CopyOnWriteArrayList<>();

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aClosedClientIsToldAsAnyOtherFailure(boolean isDirect) {
    AsyncTrunklineClient client = client(isDirect);
    client.close();
    var events = new Reader<CompleteResponse>();
    var models = new Reader<>();

    CompletableFuture<Completion> answer = client.complete("Hi");
    client.stream("Hi").subscribe(events);
    client.listModels().subscribe(models);

    var failed = assertThrows(CompletionException.class, answer::join);
    assertInstanceOf(CancelledException.class, failed.getCause());
    assertInstanceOf(CancelledException.class, events.end());
    assertInstanceOf(CancelledException.class, models.end());
    assertEquals(List.of("subscribed", "failed"), events.told);
  }

  @Test
  void aFutureThatIsGivenAValueByOthersCancelsItsCall() {
    try (AsyncTrunklineClient client = client(false)) {
      client.complete("Hi").complete(Completion.getDefaultInstance());

      assertEquals(List.of("CompleteUnary"), cancelled);
    }
  }

  @Test
  void aSubscriberThatFailsToSubscribeLeavesNoCall() {
    try (AsyncTrunklineClient client = client(false)) {
      AsyncCompletionStream stream = client.stream("Hi");

      assertThrows(NullPointerException.class, () -> stream.subscribe(null));
      assertThrows(NullPointerException.class, () -> client.watchJob("job_1").subscribe(null));

      assertTrue(stream.completion().isCompletedExceptionally());
      assertEquals(List.of("Complete", "WatchJob"), cancelled);
    }
  }

  @Test
  void aSubscriberThatFailsToTakeAnItemIsToldSo() {
    var failure = new IllegalStateException("of the subscriber's");
    var items =
        new PagePublisher<List<Integer>, Integer>(
            token -> CompletableFuture.completedFuture(List.of(1, 2)), page -> "", page -> page);
    var reader =
        new Reader<Integer>() {
          @Override
          public void onNext(Integer item) {
            super.onNext(item);
            throw failure;
          }
        };

    items.subscribe(reader);

    assertSame(failure, reader.end());
    assertEquals(List.of("subscribed", "1", "failed"), reader.told);
  }

  /** A client of a gateway that is not there. */
  private AsyncTrunklineClient client(boolean isDirect) {
    return AsyncTrunklineClient.builder("127.0.0.1:1")
        .channelOptions(
            channel -> {
              channel.intercept(noting());
              if (isDirect) {
                channel.directExecutor();
              }
            })
        .build();
  }

  private ClientInterceptor noting() {
    return new ClientInterceptor() {
      @Override
      public <Q, R> ClientCall<Q, R> interceptCall(
          MethodDescriptor<Q, R> method, CallOptions options, io.grpc.Channel next) {
        return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
          @Override
          public void cancel(String message, Throwable cause) {
            if (!cancelled.contains(method.getBareMethodName())) {
              cancelled.add(method.getBareMethodName());
            }
            super.cancel(message, cause);
          }
        };
      }
    };
  }

  /** Wants all. */
  private static class Reader<T> implements Flow.Subscriber<T> {
    final List<String> told = new ArrayList<>();
    private final CompletableFuture<Throwable> end = new CompletableFuture<>();

    Throwable end() {
      return end.orTimeout(10, TimeUnit.SECONDS).join();
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      told.add("subscribed");
      subscription.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(T item) {
      told.add(String.valueOf(item));
    }

    @Override
    public void onError(Throwable error) {
      told.add("failed");
      end.complete(error);
    }

    @Override
    public void onComplete() {
      told.add("ended");
      end.complete(null);
    }
  }
}
