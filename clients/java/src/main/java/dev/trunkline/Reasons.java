package dev.trunkline;

/**
 * The reasons of the gateway's error table, as {@link TrunklineException#getReason()} gives them. A
 * newer gateway may have more.
 */
public final class Reasons {
  // InvalidRequestException
  /** The request itself is wrong. */
  public static final String INVALID_REQUEST = "INVALID_REQUEST";

  /** The API version that was asked for is none. */
  public static final String INVALID_API_VERSION = "INVALID_API_VERSION";

  /** No message has content. */
  public static final String EMPTY_PROMPT = "EMPTY_PROMPT";

  /** The candidates that are left cannot do what was asked. */
  public static final String CAPABILITY_UNSUPPORTED = "CAPABILITY_UNSUPPORTED";

  /** This mode takes too long for a call: create a job. */
  public static final String MODE_REQUIRES_JOB = "MODE_REQUIRES_JOB";

  /** The messages do not fit into any candidate's context window. */
  public static final String CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED";

  /** A guardrail or a provider's filter refused the prompt. */
  public static final String CONTENT_BLOCKED = "CONTENT_BLOCKED";

  /** The request is larger than the gateway takes: 32 MiB. */
  public static final String PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE";

  /** A provider refused a request that the gateway thought valid. */
  public static final String UPSTREAM_REJECTED = "UPSTREAM_REJECTED";

  // UnauthenticatedException
  /** The key is missing, unknown, expired or revoked. */
  public static final String INVALID_API_KEY = "INVALID_API_KEY";

  // PermissionDeniedException
  /** The key may not do this. */
  public static final String PERMISSION_DENIED = "PERMISSION_DENIED";

  /** The key's plan does not include this route. */
  public static final String ROUTE_NOT_ALLOWED = "ROUTE_NOT_ALLOWED";

  // NotFoundException
  /** What was named does not exist. */
  public static final String NOT_FOUND = "NOT_FOUND";

  /** No model, alias or route has this name; the message names the nearest. */
  public static final String MODEL_NOT_FOUND = "MODEL_NOT_FOUND";

  /** No such conversation. */
  public static final String CONVERSATION_NOT_FOUND = "CONVERSATION_NOT_FOUND";

  /** No such job. */
  public static final String JOB_NOT_FOUND = "JOB_NOT_FOUND";

  /** Only an answer from the cache was asked for, and there is none. */
  public static final String NOT_CACHED = "NOT_CACHED";

  // FailedPreconditionException
  /** The organisation cannot pay for this request. */
  public static final String INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS";

  /** The credits ended while the answer was made. */
  public static final String BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED";

  /** The constraints leave no candidate. */
  public static final String NO_ELIGIBLE_PROVIDER = "NO_ELIGIBLE_PROVIDER";

  // ConflictException
  /** The idempotency key belongs to another request. */
  public static final String IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT";

  /** A request with this idempotency key was begun, and how it ended is not known. */
  public static final String REQUEST_ALREADY_STARTED = "REQUEST_ALREADY_STARTED";

  // ResourceExhaustedException
  /** Too many requests. */
  public static final String RATE_LIMITED = "RATE_LIMITED";

  /** Too many requests in this mode. */
  public static final String MODE_RATE_LIMITED = "MODE_RATE_LIMITED";

  /** Too many tokens. */
  public static final String TOKEN_RATE_LIMITED = "TOKEN_RATE_LIMITED";

  /** Too many requests at the same time. */
  public static final String CONCURRENCY_EXHAUSTED = "CONCURRENCY_EXHAUSTED";

  // AbortedException
  /** A request with this idempotency key is still running: ask again later. */
  public static final String REQUEST_IN_PROGRESS = "REQUEST_IN_PROGRESS";

  /** The answer broke off after part of it was sent. */
  public static final String STREAM_INTERRUPTED = "STREAM_INTERRUPTED";

  // UnavailableException
  /** Every candidate was tried. The gateway has retried already. */
  public static final String ALL_PROVIDERS_FAILED = "ALL_PROVIDERS_FAILED";

  /** The gateway sheds load. */
  public static final String OVERLOADED = "OVERLOADED";

  /** This replica is about to stop; another one will answer. */
  public static final String DRAINING = "DRAINING";

  // DeadlineExceededException
  /** The caller's deadline passed. */
  public static final String DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED";

  /** The providers took longer than the gateway waits for them. */
  public static final String UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT";

  // CancelledException
  /** The call was cancelled. */
  public static final String CANCELLED = "CANCELLED";

  // UnimplementedException
  /** This gateway does not offer the call, or not with this option. */
  public static final String UNIMPLEMENTED = "UNIMPLEMENTED";

  // InternalException
  /** A mistake of the gateway. */
  public static final String INTERNAL_ERROR = "INTERNAL_ERROR";

  /** A provider's answer could not be understood. */
  public static final String UPSTREAM_PROTOCOL_ERROR = "UPSTREAM_PROTOCOL_ERROR";

  private Reasons() {}
}
