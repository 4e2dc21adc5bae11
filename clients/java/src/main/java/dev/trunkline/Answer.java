package dev.trunkline;

import io.grpc.ClientCall;
import java.util.concurrent.CompletableFuture;

/** What a call is to give. Whoever else ends it, as with cancel or orTimeout, cancels the call. */
final class Answer<T> extends CompletableFuture<T> {
  // A call that has ended is not cancelled: it may have failed while it was still being started.
  private volatile boolean isTold;

  Answer(ClientCall<?, ?> call) {
    whenComplete(
        (value, error) -> {
          if (!isTold) {
            call.cancel("nobody waits for the answer", error);
          }
        });
  }

  /** The call has ended well. */
  void tell(T value) {
    isTold = true;
    complete(value);
  }

  /** The call has failed. */
  void fail(Throwable error) {
    isTold = true;
    completeExceptionally(error);
  }
}
