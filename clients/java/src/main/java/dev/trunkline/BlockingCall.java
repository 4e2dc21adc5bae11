package dev.trunkline;

import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.function.Supplier;

/** The messages of one server-streaming call, for one reader; any thread may close it. */
final class BlockingCall<T> implements Iterator<T>, AutoCloseable {
  // The iterator of a generated stub cannot be cancelled but by the context it was made in.
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final Iterator<T> messages;

  /**
   * Makes the call.
   *
   * @param stub a method of a generated blocking stub
   */
  BlockingCall(Supplier<Iterator<T>> stub) {
    Context outer = context.attach();
    try {
      messages = stub.get();
    } finally {
      context.detach(outer);
    }
  }

  @Override
  public boolean hasNext() {
    boolean hasNext = false;
    try {
      hasNext = messages.hasNext();
      return hasNext;
    } catch (StatusRuntimeException error) {
      throw TrunklineException.from(error);
    } finally {
      if (!hasNext) {
        close();
      }
    }
  }

  @Override
  public T next() {
    return messages.next();
  }

  @Override
  public void close() {
    context.cancel(null);
  }
}
