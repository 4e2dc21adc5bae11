package dev.trunkline;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Flow;

/**
 * One server-streaming call as a subscription: messages come as they are asked for, and gRPC's flow
 * control carries that to the gateway.
 */
final class StreamingCall<Q, R> extends ClientCall.Listener<R> implements Flow.Subscription {
  private final ClientCall<Q, R> call;
  private final Flow.Subscriber<? super R> subscriber;
  private volatile boolean isCancelled;
  private volatile IllegalArgumentException refused;
  private boolean isSubscribed;
  private Runnable earlyEnd;

  StreamingCall(ClientCall<Q, R> call, Flow.Subscriber<? super R> subscriber) {
    this.call = call;
    this.subscriber = subscriber;
  }

  /**
   * Makes the call. The lock keeps its messages, and its end, behind the subscription. Where the
   * subscriber fails at that, nobody is left to cancel the call but this.
   */
  synchronized void start(Q request) {
    call.start(this, new Metadata());
    call.sendMessage(request);
    call.halfClose();
    isSubscribed = true;
    try {
      subscriber.onSubscribe(this);
    } catch (RuntimeException | Error error) {
      cancel();
      throw error;
    }
    if (earlyEnd != null) {
      earlyEnd.run();
    }
  }

  private synchronized void awaitSubscription() {}

  /** Whether this is the thread that starts the call, as where an executor runs what it is given. */
  private synchronized boolean isTooEarly(Status status, Metadata trailers) {
    if (!isSubscribed) {
      earlyEnd = () -> onClose(status, trailers);
    }
    return !isSubscribed;
  }

  @Override
  public void request(long messages) {
    if (messages > 0) {
      call.request((int) Math.min(messages, Integer.MAX_VALUE));
    } else {
      refused = new IllegalArgumentException("a subscriber asks for one message at least");
      call.cancel(refused.getMessage(), refused);
    }
  }

  @Override
  public void cancel() {
    isCancelled = true;
    call.cancel("the subscription was cancelled", null);
  }

  @Override
  public void onMessage(R message) {
    awaitSubscription();
    if (!isCancelled) {
      subscriber.onNext(message);
    }
  }

  @Override
  public void onClose(Status status, Metadata trailers) {
    if (isTooEarly(status, trailers) || isCancelled) {
      return;
    }
    if (status.isOk()) {
      subscriber.onComplete();
    } else if (refused != null) {
      subscriber.onError(refused);
    } else {
      subscriber.onError(TrunklineException.from(status.asRuntimeException(trailers)));
    }
  }
}
