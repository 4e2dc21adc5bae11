package dev.trunkline;

import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * A call that did not end with OK. Each subclass stands for one status code of gRPC, so that a
 * reason that is newer than this client is still caught by its family:
 *
 * <pre>
 * TrunklineException
 * ├── InvalidRequestException      INVALID_ARGUMENT     the caller can fix it
 * ├── UnauthenticatedException     UNAUTHENTICATED
 * ├── PermissionDeniedException    PERMISSION_DENIED
 * ├── NotFoundException            NOT_FOUND
 * ├── FailedPreconditionException  FAILED_PRECONDITION
 * ├── ConflictException            ALREADY_EXISTS
 * ├── ResourceExhaustedException   RESOURCE_EXHAUSTED
 * ├── AbortedException             ABORTED
 * ├── UnavailableException         UNAVAILABLE
 * ├── DeadlineExceededException    DEADLINE_EXCEEDED
 * ├── CancelledException           CANCELLED
 * ├── UnimplementedException       UNIMPLEMENTED
 * └── InternalException            INTERNAL, UNKNOWN, DATA_LOSS and any other
 * </pre>
 *
 * <p>The message is for a person to read; programs look at the class or at the reason.
 */
public abstract sealed class TrunklineException extends RuntimeException
    permits AbortedException,
        CancelledException,
        ConflictException,
        DeadlineExceededException,
        FailedPreconditionException,
        InternalException,
        InvalidRequestException,
        NotFoundException,
        PermissionDeniedException,
        ResourceExhaustedException,
        UnauthenticatedException,
        UnavailableException,
        UnimplementedException {
  private static final long serialVersionUID = 1;

  private final ErrorDetails details;

  TrunklineException(ErrorDetails details, Throwable cause) {
    super(details.message(), cause);
    this.details = details;
  }

  /**
   * The error that a failed RPC stands for; for calls that are made with a stub of the caller's
   * own.
   *
   * @param error what the stub threw
   * @return its family's exception, with the original as its cause
   */
  public static TrunklineException from(StatusRuntimeException error) {
    return of(error.getStatus(), error.getTrailers(), error);
  }

  static TrunklineException of(Status status, Metadata trailers, Throwable cause) {
    Metadata told = Objects.requireNonNullElseGet(trailers, Metadata::new);
    return of(ErrorDetails.of(status, told), cause);
  }

  /** An answer is never cut off silently. */
  static TrunklineException cutOff() {
    return of(ErrorDetails.interrupted("the stream ended without its last event"), null);
  }

  static TrunklineException takenBack() {
    return of(ErrorDetails.interrupted("text that was handed out was taken back by a reset"), null);
  }

  private static TrunklineException of(ErrorDetails details, Throwable cause) {
    return switch (details.code()) {
      case INVALID_ARGUMENT -> new InvalidRequestException(details, cause);
      case UNAUTHENTICATED -> new UnauthenticatedException(details, cause);
      case PERMISSION_DENIED -> new PermissionDeniedException(details, cause);
      case NOT_FOUND -> new NotFoundException(details, cause);
      case FAILED_PRECONDITION -> new FailedPreconditionException(details, cause);
      case ALREADY_EXISTS -> new ConflictException(details, cause);
      case RESOURCE_EXHAUSTED -> new ResourceExhaustedException(details, cause);
      case ABORTED -> new AbortedException(details, cause);
      case UNAVAILABLE -> new UnavailableException(details, cause);
      case DEADLINE_EXCEEDED -> new DeadlineExceededException(details, cause);
      case CANCELLED -> new CancelledException(details, cause);
      case UNIMPLEMENTED -> new UnimplementedException(details, cause);
      default -> new InternalException(details, cause);
    };
  }

  /**
   * Trunkline's word for what happened, one of {@link Reasons} or newer.
   *
   * @return the name of the code where none was sent, as when a proxy or gRPC itself made the error
   */
  public String getReason() {
    return details.reason();
  }

  /**
   * The status of the RPC.
   *
   * @return never OK
   */
  public Status.Code getCode() {
    return details.code();
  }

  /**
   * Names the request in the gateway's log.
   *
   * @return empty where the gateway was not reached
   */
  public String getRequestId() {
    return details.requestId();
  }

  /**
   * How long to wait before the next try.
   *
   * @return empty where the gateway does not know
   */
  public Optional<Duration> getRetryAfter() {
    return Optional.ofNullable(details.retryAfter());
  }

  /**
   * The upstream that is meant.
   *
   * @return may be empty
   */
  public String getProvider() {
    return details.provider();
  }

  /**
   * What is wrong with the request.
   *
   * @return may be empty
   */
  public List<FieldViolation> getFieldViolations() {
    return details.fieldViolations();
  }

  /**
   * May a program send the same request again by itself, after {@link #getRetryAfter()}?
   *
   * @return false for ALL_PROVIDERS_FAILED and STREAM_INTERRUPTED, where another try may work but
   *     is the caller's decision: the gateway has retried already, or part of an answer was paid
   *     for
   */
  public boolean isRetryable() {
    return details.isRetryable();
  }

  /**
   * Everything that the gateway's ErrorInfo carries.
   *
   * @return may be empty
   */
  public Map<String, String> getMetadata() {
    return details.metadata();
  }

  @Override
  public String toString() {
    String where = getRequestId().isEmpty() ? "" : " (request " + getRequestId() + ")";
    return getClass().getName() + ": " + getReason() + ": " + getMessage() + where;
  }
}
