package dev.trunkline;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;

/** The channel to one gateway, and what is sent with every call over it. */
final class Connection implements AutoCloseable {
  private final ManagedChannel channel;
  private final Metadata headers;
  private final Duration defaultTimeout;

  Connection(ManagedChannel channel, Metadata headers, Duration defaultTimeout) {
    this.channel = channel;
    this.headers = headers;
    this.defaultTimeout = defaultTimeout;
  }

  /** Calls over this channel have a deadline and the headers of the client and of the settings. */
  Channel with(CallSettings settings) {
    return ClientInterceptors.intercept(channel, new Outfit(settings));
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }

  private final class Outfit implements ClientInterceptor {
    private final CallSettings settings;

    Outfit(CallSettings settings) {
      this.settings = settings;
    }

    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(
        MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
      CallOptions timed =
          options.getDeadline() == null
              ? options.withDeadlineAfter(settings.timeoutOr(defaultTimeout))
              : options;
      return new SimpleForwardingClientCall<>(next.newCall(method, timed)) {
        @Override
        public void start(Listener<R> listener, Metadata own) {
          var all = new Metadata();
          all.merge(headers);
          all.merge(settings.headers());
          all.merge(own);
          super.start(new EndListener<>(listener, channel), all);
        }
      };
    }
  }

  /** Makes the end of a call say all that is known of it. */
  private static final class EndListener<R> extends SimpleForwardingClientCallListener<R> {
    private final ManagedChannel channel;
    private String requestId;

    EndListener(ClientCall.Listener<R> listener, ManagedChannel channel) {
      super(listener);
      this.channel = channel;
    }

    @Override
    public void onHeaders(Metadata headers) {
      requestId = headers.get(Headers.REQUEST_ID);
      super.onHeaders(headers);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      // An error is made of the trailers alone.
      if (requestId != null && !trailers.containsKey(Headers.REQUEST_ID)) {
        trailers.put(Headers.REQUEST_ID, requestId);
      }
      super.onClose(reasonOf(status), trailers);
    }

    /**
     * gRPC cancels a call whose message it cannot read, and then says nothing but that; and to it a
     * channel that was closed here is a gateway that is not there.
     */
    private Status reasonOf(Status status) {
      if (status.getCode() == Status.Code.UNAVAILABLE && channel.isShutdown()) {
        return Status.CANCELLED.withDescription("the client is closed");
      }
      boolean isUnreadable =
          status.getCode() == Status.Code.CANCELLED
              && status.getCause() instanceof StatusRuntimeException;
      return isUnreadable ? Status.fromThrowable(status.getCause()) : status;
    }
  }
}
