package dev.trunkline;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/** What is known of a failure; read from google.rpc.Status, and never from a message's words. */
record ErrorDetails(
    String message,
    String reason,
    Status.Code code,
    String requestId,
    Duration retryAfter,
    String provider,
    List<FieldViolation> fieldViolations,
    boolean isRetryable,
    Map<String, String> metadata)
    implements Serializable {
  private static final String DOMAIN = "trunkline";
  private static final Metadata.Key<byte[]> STATUS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
  private static final Set<String> RETRYABLE =
      Set.of(
          Reasons.RATE_LIMITED,
          Reasons.MODE_RATE_LIMITED,
          Reasons.TOKEN_RATE_LIMITED,
          Reasons.CONCURRENCY_EXHAUSTED,
          Reasons.REQUEST_IN_PROGRESS);

  static ErrorDetails interrupted(String message) {
    return new ErrorDetails(
        message,
        Reasons.STREAM_INTERRUPTED,
        Status.Code.ABORTED,
        "",
        null,
        "",
        List.of(),
        false,
        Map.of());
  }

  static ErrorDetails of(Status rpc, Metadata trailers) {
    com.google.rpc.Status status = statusIn(trailers);
    ErrorInfo info = detail(status, ErrorInfo.getDefaultInstance());
    RequestInfo request = detail(status, RequestInfo.getDefaultInstance());
    RetryInfo retry = detail(status, RetryInfo.getDefaultInstance());
    BadRequest badRequest = detail(status, BadRequest.getDefaultInstance());
    return new ErrorDetails(
        firstOf(status.getMessage(), Objects.requireNonNullElse(rpc.getDescription(), "")),
        firstOf(info.getReason(), rpc.getCode().name()),
        rpc.getCode(),
        firstOf(
            request.getRequestId(),
            Objects.requireNonNullElse(trailers.get(Headers.REQUEST_ID), "")),
        retry.hasRetryDelay() ? duration(retry.getRetryDelay()) : null,
        info.getMetadataOrDefault("provider", ""),
        badRequest.getFieldViolationsList().stream().map(ErrorDetails::violation).toList(),
        isRetryable(rpc.getCode(), info),
        Map.copyOf(info.getMetadataMap()));
  }

  /** What the gateway says, else what is known of its reason, else of the code. */
  private static boolean isRetryable(Status.Code code, ErrorInfo info) {
    String said = info.getMetadataOrDefault("retryable", "");
    if (said.equals("true") || said.equals("false")) {
      return said.equals("true");
    }
    String reason = info.getDomain().equals(DOMAIN) ? info.getReason() : "";
    return RETRYABLE.contains(reason)
        || code == Status.Code.UNAVAILABLE && !reason.equals(Reasons.ALL_PROVIDERS_FAILED);
  }

  private static com.google.rpc.Status statusIn(Metadata trailers) {
    byte[] encoded = trailers.get(STATUS);
    if (encoded != null) {
      try {
        return com.google.rpc.Status.parseFrom(encoded);
      } catch (InvalidProtocolBufferException cutOff) {
        // By a proxy, perhaps. The code and message of the RPC remain.
      }
    }
    return com.google.rpc.Status.getDefaultInstance();
  }

  /** The last detail of this type that can be read, or else the empty one that was given. */
  private static <T extends Message> T detail(com.google.rpc.Status status, T empty) {
    @SuppressWarnings("unchecked")
    Class<T> type = (Class<T>) empty.getClass();
    T found = empty;
    for (Any packed : status.getDetailsList()) {
      if (packed.is(type)) {
        try {
          found = packed.unpack(type);
        } catch (InvalidProtocolBufferException damaged) {
          found = empty;
        }
      }
    }
    return found;
  }

  private static FieldViolation violation(BadRequest.FieldViolation violation) {
    return new FieldViolation(
        violation.getField(), violation.getDescription(), violation.getReason());
  }

  private static Duration duration(com.google.protobuf.Duration duration) {
    try {
      return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    } catch (ArithmeticException beyondAllTimes) {
      return Duration.ofSeconds(duration.getSeconds());
    }
  }

  private static String firstOf(String wanted, String otherwise) {
    return wanted.isEmpty() ? otherwise : wanted;
  }
}
