package dev.trunkline;

import dev.trunkline.v1.CompleteRequest;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;

/**
 * One answer as it is made: a publisher of events, for one subscriber. Made by {@link
 * AsyncTrunklineClient#stream}. The call is made when somebody subscribes, and the gateway is asked
 * for no more than the subscriber asks for. Cancelling the subscription cancels the call, so that
 * nobody pays for tokens that nobody reads.
 *
 * <p>Errors are those of {@link CompletionStream}, and come after the events before them.
 */
public final class AsyncCompletionStream
    implements Flow.Publisher<CompleteResponse>, AutoCloseable {
  private final ClientCall<CompleteRequest, CompleteResponse> call;
  private final CompleteRequest request;
  private final CompletionFolder folder = new CompletionFolder();
  private final Answer<Completion> answer;
  private boolean isTaken;

  AsyncCompletionStream(
      ClientCall<CompleteRequest, CompleteResponse> call, CompleteRequest request) {
    this.call = call;
    this.request = request;
    answer = new Answer<>(call);
  }

  /** Makes the call. Any further subscriber gets an {@link IllegalStateException}. */
  @Override
  public synchronized void subscribe(Flow.Subscriber<? super CompleteResponse> subscriber) {
    if (isTaken) {
      subscriber.onSubscribe(new Refusal());
      subscriber.onError(
          new IllegalStateException("the stream has had its subscriber, or is closed"));
      return;
    }
    isTaken = true;
    try {
      new StreamingCall<>(call, new Reader(subscriber)).start(request);
    } catch (RuntimeException | Error error) {
      answer.completeExceptionally(error);
      throw error;
    }
  }

  /** The text of the first choice as it comes. */
  public Flow.Publisher<String> textDeltas() {
    return textDeltas(0);
  }

  /**
   * The text of one choice as it comes; none of the pieces is empty. Its subscriber is the stream's
   * one subscriber.
   *
   * <p>It ends with an {@link AbortedException} where text that was handed out already is taken
   * back by a StreamReset, which happens only under RECOVERY_RESTART. Who asks for that reads the
   * events.
   */
  public Flow.Publisher<String> textDeltas(int choiceIndex) {
    return subscriber -> subscribe(new TextReader(choiceIndex, subscriber));
  }

  /**
   * The whole answer, messages included, once the stream was read to its end. Where nobody has
   * subscribed, this reads it. Cancelling the future cancels the call.
   */
  public synchronized CompletableFuture<Completion> completion() {
    if (!isTaken) {
      subscribe(new Drain());
    }
    return answer;
  }

  /** The answer as far as it was read; also after an error. */
  public Completion snapshot() {
    synchronized (folder) {
      return folder.completion();
    }
  }

  /** Cancels the call unless it has ended; its subscriber gets a {@link CancelledException}. */
  @Override
  public synchronized void close() {
    isTaken = true;
    answer.completeExceptionally(cancelled("the stream was closed"));
  }

  private static TrunklineException cancelled(String message) {
    return TrunklineException.of(Status.CANCELLED.withDescription(message), new Metadata(), null);
  }

  /** Folds the events that pass. */
  private final class Reader implements Flow.Subscriber<CompleteResponse>, Flow.Subscription {
    private final Flow.Subscriber<? super CompleteResponse> subscriber;
    private Flow.Subscription subscription;

    Reader(Flow.Subscriber<? super CompleteResponse> subscriber) {
      this.subscriber = subscriber;
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      this.subscription = subscription;
      subscriber.onSubscribe(this);
    }

    @Override
    public void request(long events) {
      subscription.request(events);
    }

    @Override
    public void cancel() {
      subscription.cancel();
      answer.completeExceptionally(cancelled("the subscription was cancelled"));
    }

    @Override
    public void onNext(CompleteResponse event) {
      synchronized (folder) {
        folder.feed(event);
      }
      subscriber.onNext(event);
    }

    @Override
    public void onError(Throwable error) {
      answer.fail(error);
      subscriber.onError(error);
    }

    @Override
    public void onComplete() {
      if (folder.isCompleted()) {
        answer.tell(folder.completion());
        subscriber.onComplete();
      } else {
        onError(TrunklineException.cutOff());
      }
    }
  }

  private final class TextReader implements Flow.Subscriber<CompleteResponse> {
    private final HandedOutText text;
    private final Flow.Subscriber<? super String> subscriber;
    private Flow.Subscription subscription;

    TextReader(int choiceIndex, Flow.Subscriber<? super String> subscriber) {
      text = new HandedOutText(choiceIndex);
      this.subscriber = subscriber;
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      this.subscription = subscription;
      subscriber.onSubscribe(subscription);
    }

    @Override
    public void onNext(CompleteResponse event) {
      String piece;
      try {
        piece = text.of(event, folder.hop());
      } catch (AbortedException takenBack) {
        subscription.cancel();
        subscriber.onError(takenBack);
        return;
      }
      if (piece.isEmpty()) {
        subscription.request(1);
      } else {
        subscriber.onNext(piece);
      }
    }

    @Override
    public void onError(Throwable error) {
      subscriber.onError(error);
    }

    @Override
    public void onComplete() {
      subscriber.onComplete();
    }
  }

  /** Reads everything, for the sake of what is folded. */
  private static final class Drain implements Flow.Subscriber<CompleteResponse> {
    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      subscription.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(CompleteResponse event) {}

    @Override
    public void onError(Throwable error) {}

    @Override
    public void onComplete() {}
  }

  /** What Flow wants a subscriber to get before its error. */
  private static final class Refusal implements Flow.Subscription {
    @Override
    public void request(long events) {}

    @Override
    public void cancel() {}
  }
}
