package dev.trunkline;

import io.grpc.Metadata;
import java.time.Duration;
import java.util.Objects;
import java.util.regex.Pattern;

/**
 * What a call carries beside its request: how long it may take, how it is named and traced, further
 * headers. Given to {@link TrunklineClient#with} or {@link AsyncTrunklineClient#with}.
 */
public final class CallSettings {
  static final CallSettings NONE = builder().build();

  private final Duration timeout;
  private final String idempotencyKey;
  private final Metadata headers = new Metadata();

  private CallSettings(Builder builder) {
    timeout = builder.timeout;
    idempotencyKey = builder.idempotencyKey;
    headers.merge(builder.headers);
  }

  public static Builder builder() {
    return new Builder();
  }

  Duration timeoutOr(Duration otherwise) {
    return Objects.requireNonNullElse(timeout, otherwise);
  }

  String idempotencyKey() {
    return idempotencyKey;
  }

  Metadata headers() {
    return headers;
  }

  /** Makes {@link CallSettings}. */
  public static final class Builder {
    private static final Pattern REQUEST_ID = Pattern.compile("[A-Za-z0-9_-]{8,64}");

    private final Metadata headers = new Metadata();
    private Duration timeout;
    private String idempotencyKey = "";

    private Builder() {}

    /**
     * How long each call may take as a whole, retries included; each page of a listing is a call.
     *
     * @param timeout instead of the client's default
     */
    public Builder timeout(Duration timeout) {
      this.timeout = Objects.requireNonNull(timeout);
      return this;
    }

    /**
     * The same request with the same key is answered once. Counts for completions, new jobs and new
     * conversations.
     *
     * @param idempotencyKey at most 255 characters
     */
    public Builder idempotencyKey(String idempotencyKey) {
      this.idempotencyKey = Objects.requireNonNull(idempotencyKey);
      return this;
    }

    /**
     * Names the request, instead of the gateway.
     *
     * @param requestId 8 to 64 of A-Z, a-z, 0-9, _ and -
     * @throws IllegalArgumentException the gateway would not take it and mint another
     */
    public Builder requestId(String requestId) {
      if (!REQUEST_ID.matcher(requestId).matches()) {
        throw new IllegalArgumentException("requestId must be 8 to 64 of A-Z, a-z, 0-9, _ and -");
      }
      return header(Headers.REQUEST_ID.name(), requestId);
    }

    /**
     * W3C trace context, also carried to the provider.
     *
     * @param traceparent the header's value
     */
    public Builder traceparent(String traceparent) {
      return header("traceparent", traceparent);
    }

    /**
     * W3C trace state.
     *
     * @param tracestate the header's value
     */
    public Builder tracestate(String tracestate) {
      return header("tracestate", tracestate);
    }

    /**
     * A further header, in place of one of the same name.
     *
     * @param name not {@code authorization}, nor one that begins with {@code grpc-}
     * @param value printable ASCII
     * @throws IllegalArgumentException it cannot be sent
     */
    public Builder header(String name, String value) {
      Headers.set(headers, name, value);
      return this;
    }

    /**
     * A further header of bytes, in place of one of the same name.
     *
     * @param name ends with {@code -bin}
     * @param value any bytes
     * @throws IllegalArgumentException it cannot be sent
     */
    public Builder header(String name, byte[] value) {
      Headers.set(headers, name, value);
      return this;
    }

    public CallSettings build() {
      return new CallSettings(this);
    }
  }
}
