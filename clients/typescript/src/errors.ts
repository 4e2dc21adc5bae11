/**
 * What a call can fail with, as one tree, read from google.rpc.Status and never from a message's words.
 *
 * Each class mirrors one gRPC status code. A `reason` says more, and one that is newer than this package is still
 * caught by its class:
 *
 *     TrunklineError
 *     ├── InvalidRequestError       INVALID_ARGUMENT     the caller can fix it
 *     ├── UnauthenticatedError      UNAUTHENTICATED
 *     ├── PermissionDeniedError     PERMISSION_DENIED
 *     ├── NotFoundError             NOT_FOUND
 *     ├── FailedPreconditionError   FAILED_PRECONDITION
 *     ├── ConflictError             ALREADY_EXISTS
 *     ├── ResourceExhaustedError    RESOURCE_EXHAUSTED
 *     ├── AbortedError              ABORTED
 *     ├── UnavailableError          UNAVAILABLE
 *     ├── DeadlineExceededError     DEADLINE_EXCEEDED
 *     ├── CancelledError            CANCELLED
 *     ├── UnimplementedError        UNIMPLEMENTED
 *     └── InternalError             INTERNAL, UNKNOWN, DATA_LOSS and any other
 */

import { type Metadata, type ServiceError, status as Code } from "@grpc/grpc-js";
import type { Duration } from "./v1/google/protobuf/duration.js";
import { BadRequest, ErrorInfo, RequestInfo, RetryInfo } from "./v1/google/rpc/error_details.js";
import { Status } from "./v1/google/rpc/status.js";

const DOMAIN = "trunkline";

/** One thing that is wrong with a request; `field` is its path, as "spec.messages[0].parts". */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
  readonly reason: string;
}

/** What is known of an error beside its message. */
export interface ErrorFields extends ErrorOptions {
  readonly reason?: string;
  readonly code?: Code;
  readonly requestId?: string;
  readonly retryAfterMs?: number | undefined;
  readonly provider?: string;
  readonly fieldViolations?: readonly FieldViolation[];
  readonly retryable?: boolean | undefined;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A call that did not end with OK. `cause` is gRPC's own error, or the reason of the signal that aborted the call. */
export class TrunklineError extends Error {
  /** The status that errors of this class stand for. */
  static readonly code: Code = Code.UNKNOWN;
  static readonly retryable: boolean = false;

  /**
   * Trunkline's word, one of {@link Reason} or newer. The name of `code` where none was sent, as when a proxy or the
   * gRPC library itself made the error.
   */
  readonly reason: string;
  /** The RPC's status. */
  readonly code: Code;
  /** Of the gateway's log; empty where the gateway was not reached. */
  readonly requestId: string;
  /** How long to wait before the next try, if the gateway knows. */
  readonly retryAfterMs: number | undefined;
  /** The upstream that is meant, or empty. */
  readonly provider: string;
  /** May be empty. */
  readonly fieldViolations: readonly FieldViolation[];
  /**
   * May a program send the same request again by itself, after `retryAfterMs`? False for `ALL_PROVIDERS_FAILED` and
   * `STREAM_INTERRUPTED`, where another try may work but is the caller's decision: the gateway has retried already, or
   * part of an answer was paid for.
   */
  readonly retryable: boolean;
  /** Everything that google.rpc.ErrorInfo carries. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, "cause" in fields ? { cause: fields.cause } : undefined);
    this.name = new.target.name;
    this.code = fields.code ?? new.target.code;
    this.reason = fields.reason || Code[this.code];
    this.requestId = fields.requestId ?? "";
    this.retryAfterMs = fields.retryAfterMs;
    this.provider = fields.provider ?? "";
    this.fieldViolations = fields.fieldViolations ?? [];
    this.retryable = fields.retryable ?? new.target.retryable;
    this.metadata = fields.metadata ?? {};
  }

  override toString(): string {
    const where = this.requestId ? ` (request ${this.requestId})` : "";
    return `${this.name}: ${this.reason}: ${this.message}${where}`;
  }
}

/** The request itself is wrong; `fieldViolations` says where. */
export class InvalidRequestError extends TrunklineError {
  static override readonly code = Code.INVALID_ARGUMENT;
}

/** The gateway does not know who asks. */
export class UnauthenticatedError extends TrunklineError {
  static override readonly code = Code.UNAUTHENTICATED;
}

/** The key may not do this. */
export class PermissionDeniedError extends TrunklineError {
  static override readonly code = Code.PERMISSION_DENIED;
}

/** What was named does not exist, or is not the caller's. */
export class NotFoundError extends TrunklineError {
  static override readonly code = Code.NOT_FOUND;
}

/** Something else has to change before this request can be served. */
export class FailedPreconditionError extends TrunklineError {
  static override readonly code = Code.FAILED_PRECONDITION;
}

/** Something with this name or key exists already. */
export class ConflictError extends TrunklineError {
  static override readonly code = Code.ALREADY_EXISTS;
}

/** A limit was met; without a reason of Trunkline's, the gRPC library's own on the size of messages. */
export class ResourceExhaustedError extends TrunklineError {
  static override readonly code = Code.RESOURCE_EXHAUSTED;
}

/** The call was given up half-way. */
export class AbortedError extends TrunklineError {
  static override readonly code = Code.ABORTED;
}

/** The gateway cannot be reached, or cannot answer now. */
export class UnavailableError extends TrunklineError {
  static override readonly code = Code.UNAVAILABLE;
  static override readonly retryable = true;
}

/** The caller's deadline passed, or the gateway's patience with the providers ended. */
export class DeadlineExceededError extends TrunklineError {
  static override readonly code = Code.DEADLINE_EXCEEDED;
}

/** The call was cancelled: by its signal, whose reason is the `cause`, or by closing the stream or the client. */
export class CancelledError extends TrunklineError {
  static override readonly code = Code.CANCELLED;
}

/** This gateway does not offer the call, or not with this option. */
export class UnimplementedError extends TrunklineError {
  static override readonly code = Code.UNIMPLEMENTED;
}

/** A mistake of the gateway; its log has the rest under `requestId`. */
export class InternalError extends TrunklineError {
  static override readonly code = Code.INTERNAL;
}

type Family = typeof TrunklineError;

const FAMILIES: ReadonlyMap<Code, Family> = new Map(
  [
    InvalidRequestError,
    UnauthenticatedError,
    PermissionDeniedError,
    NotFoundError,
    FailedPreconditionError,
    ConflictError,
    ResourceExhaustedError,
    AbortedError,
    UnavailableError,
    DeadlineExceededError,
    CancelledError,
    UnimplementedError,
    InternalError,
  ].map((family: Family) => [family.code, family]),
);

interface Meaning {
  readonly family: Family;
  /** Where it is not the family's. */
  readonly retryable?: boolean;
}

const MEANINGS = {
  /** No message has content. */
  EMPTY_PROMPT: { family: InvalidRequestError },
  /** The candidates that are left cannot do what was asked. */
  CAPABILITY_UNSUPPORTED: { family: InvalidRequestError },
  /** This mode takes too long for a call: create a job. */
  MODE_REQUIRES_JOB: { family: InvalidRequestError },
  /** The messages do not fit into any candidate's context window. */
  CONTEXT_LENGTH_EXCEEDED: { family: InvalidRequestError },
  /** A guardrail or a provider's filter refused the prompt. */
  CONTENT_BLOCKED: { family: InvalidRequestError },
  /** The request is larger than the gateway takes: 32 MiB. */
  PAYLOAD_TOO_LARGE: { family: InvalidRequestError },
  /** A provider refused a request that the gateway thought valid. */
  UPSTREAM_REJECTED: { family: InvalidRequestError },
  /** The key is missing, unknown, expired or revoked. */
  INVALID_API_KEY: { family: UnauthenticatedError },
  /** The key's plan does not include this route. */
  ROUTE_NOT_ALLOWED: { family: PermissionDeniedError },
  /** No model, alias or route has this name; the message names the nearest. */
  MODEL_NOT_FOUND: { family: NotFoundError },
  CONVERSATION_NOT_FOUND: { family: NotFoundError },
  JOB_NOT_FOUND: { family: NotFoundError },
  /** The organisation cannot pay for this request. */
  INSUFFICIENT_CREDITS: { family: FailedPreconditionError },
  /** The credits ended while the answer was made. */
  BUDGET_EXHAUSTED: { family: FailedPreconditionError },
  /** The constraints leave no candidate. */
  NO_ELIGIBLE_PROVIDER: { family: FailedPreconditionError },
  /** The idempotency key belongs to another request. */
  IDEMPOTENCY_CONFLICT: { family: ConflictError },
  /** A request with this idempotency key was begun, and how it ended is not known. */
  REQUEST_ALREADY_STARTED: { family: ConflictError },
  /** Too many requests; see `retryAfterMs`. */
  RATE_LIMITED: { family: ResourceExhaustedError, retryable: true },
  /** Too many requests in this mode. */
  MODE_RATE_LIMITED: { family: ResourceExhaustedError, retryable: true },
  /** Too many tokens. */
  TOKEN_RATE_LIMITED: { family: ResourceExhaustedError, retryable: true },
  /** Too many requests at the same time. */
  CONCURRENCY_EXHAUSTED: { family: ResourceExhaustedError, retryable: true },
  /** A request with this idempotency key is still running: ask again later. */
  REQUEST_IN_PROGRESS: { family: AbortedError, retryable: true },
  /** The answer broke off after part of it was sent. */
  STREAM_INTERRUPTED: { family: AbortedError },
  /** Every candidate was tried. The gateway has retried already. */
  ALL_PROVIDERS_FAILED: { family: UnavailableError, retryable: false },
  /** The gateway sheds load. */
  OVERLOADED: { family: UnavailableError },
  /** This replica is about to stop; another one will answer. */
  DRAINING: { family: UnavailableError },
  /** The providers took longer than the gateway waits for them. */
  UPSTREAM_TIMEOUT: { family: DeadlineExceededError },
  /** A provider's answer could not be understood. */
  UPSTREAM_PROTOCOL_ERROR: { family: InternalError },
} as const satisfies Record<string, Meaning>;

/** The reasons that this package knows, by name: `error.reason === Reason.RATE_LIMITED`. */
export const Reason = Object.fromEntries(Object.keys(MEANINGS).map((name) => [name, name])) as {
  readonly [Name in keyof typeof MEANINGS]: Name;
};

/**
 * The error that an ended RPC stands for: its code's family, where no details can be read.
 *
 * @param error - As a call of a generated stub ends with.
 * @param initial - The headers of the response, if any came.
 * @param signal - What may have cancelled the call.
 */
export function errorFromRpc(error: ServiceError, initial?: Metadata, signal?: AbortSignal): TrunklineError {
  const { metadata: trailing } = error;
  const code = error.code in Code ? error.code : Code.UNKNOWN;
  const status = statusOf(trailing);
  const info = detail(status, "ErrorInfo", ErrorInfo);
  const meaning: Meaning | undefined =
    info?.domain === DOMAIN && Object.hasOwn(MEANINGS, info.reason)
      ? MEANINGS[info.reason as keyof typeof MEANINGS]
      : undefined;
  const Family = meaning?.family ?? FAMILIES.get(code) ?? InternalError;
  const retryDelay = detail(status, "RetryInfo", RetryInfo)?.retryDelay;
  const requestId = detail(status, "RequestInfo", RequestInfo)?.requestId;
  const violations = detail(status, "BadRequest", BadRequest)?.fieldViolations ?? [];
  return new Family(status?.message || error.details, {
    reason: info?.reason || Code[code],
    code,
    requestId: requestId || requestIdHeader(trailing) || requestIdHeader(initial),
    retryAfterMs: retryDelay && milliseconds(retryDelay),
    provider: info?.metadata["provider"] ?? "",
    fieldViolations: violations.map(({ field, description, reason }) => ({ field, description, reason })),
    retryable: flag(info?.metadata["retryable"]) ?? meaning?.retryable,
    metadata: info?.metadata ?? {},
    cause: code === Code.CANCELLED && signal?.aborted ? signal.reason : error,
  });
}

function statusOf(trailing: Metadata): Status | undefined {
  const [encoded] = trailing.get("grpc-status-details-bin");
  return typeof encoded === "object" ? decoded(Status, encoded) : undefined;
}

function detail<T>(status: Status | undefined, name: string, type: { decode(bytes: Uint8Array): T }): T | undefined {
  const packed = status?.details.find(({ typeUrl }) => typeUrl.endsWith(`/google.rpc.${name}`));
  return packed && decoded(type, packed.value);
}

function decoded<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array): T | undefined {
  try {
    return type.decode(bytes);
  } catch {
    // A proxy may have cut it off. The code and message of the RPC remain.
    return undefined;
  }
}

function requestIdHeader(metadata: Metadata | undefined): string {
  return String(metadata?.get("x-request-id")[0] ?? "");
}

function milliseconds({ seconds, nanos }: Duration): number {
  return Number(seconds) * 1e3 + nanos / 1e6;
}

function flag(text: string | undefined): boolean | undefined {
  return text === "true" ? true : text === "false" ? false : undefined;
}
