import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  CancelledError,
  Code,
  errorFromRpc,
  FailedPreconditionError,
  InternalError,
  InvalidRequestError,
  NotFoundError,
  Reason,
  ResourceExhaustedError,
  TrunklineError,
  UnavailableError,
} from "@trunkline/client";
import type { Any } from "../src/v1/google/protobuf/any.js";
import { BadRequest, ErrorInfo, RequestInfo, RetryInfo } from "../src/v1/google/rpc/error_details.js";
import { Status } from "../src/v1/google/rpc/status.js";

function packed<T>(name: string, type: { encode(message: T): { finish(): Uint8Array } }, message: T): Any {
  return { typeUrl: `type.googleapis.com/google.rpc.${name}`, value: type.encode(message).finish() };
}

function errorInfo(reason: string, metadata = {}, domain = "trunkline"): Any {
  return packed("ErrorInfo", ErrorInfo, { reason, domain, metadata });
}

function failure(code: Code, details: Any[] | Buffer = []): ServiceError {
  const metadata = new Metadata();
  const bytes = Buffer.isBuffer(details) ? details : Status.encode({ code, message: "said so", details }).finish();
  metadata.set("grpc-status-details-bin", Buffer.from(bytes));
  return Object.assign(new Error("of gRPC"), { code, details: "of the RPC", metadata });
}

describe("a status without details is of its code's family", () => {
  for (const code of Object.values(Code).filter((value): value is Code => typeof value === "number" && value !== 0)) {
    test(Code[code], () => {
      const error = errorFromRpc(failure(code, Buffer.of()));

      const expected = [Code.UNKNOWN, Code.OUT_OF_RANGE, Code.DATA_LOSS].includes(code) ? Code.INTERNAL : code;
      assert.equal((error.constructor as typeof TrunklineError).code, expected);
      assert.deepEqual([error.reason, error.code, error.message], [Code[code], code, "of the RPC"]);
      assert.equal(error.retryable, code === Code.UNAVAILABLE);
    });
  }
});

test("an error carries what its details say", () => {
  const violation = { field: "spec.messages[0].role", description: "unknown", reason: "ENUM" };
  const cause = failure(Code.INVALID_ARGUMENT, [
    errorInfo("INVALID_REQUEST", { provider: "p", retryable: "true", extra: "more" }),
    packed("RequestInfo", RequestInfo, { requestId: "req_12345", servingData: "" }),
    packed("RetryInfo", RetryInfo, { retryDelay: { seconds: 1n, nanos: 500_000_000 } }),
    packed("BadRequest", BadRequest, { fieldViolations: [{ ...violation, localizedMessage: undefined }] }),
  ]);

  const error = errorFromRpc(cause);

  assert(error instanceof InvalidRequestError);
  assert.deepEqual(
    { ...error },
    {
      name: "InvalidRequestError",
      reason: "INVALID_REQUEST",
      code: Code.INVALID_ARGUMENT,
      requestId: "req_12345",
      retryAfterMs: 1500,
      provider: "p",
      fieldViolations: [violation],
      retryable: true,
      metadata: { provider: "p", retryable: "true", extra: "more" },
    },
  );
  assert.equal(error.cause, cause);
  assert.equal(String(error), "InvalidRequestError: INVALID_REQUEST: said so (request req_12345)");
});

test("a number that is no code is UNKNOWN", () => {
  const error = errorFromRpc(failure(99 as number, Buffer.of()));

  assert.ok(error instanceof InternalError);
  assert.deepEqual([error.reason, error.code], ["UNKNOWN", Code.UNKNOWN]);
});

for (const [reason, code, family, retryable] of [
  [Reason.RATE_LIMITED, Code.RESOURCE_EXHAUSTED, ResourceExhaustedError, true],
  // The reason says more than the code.
  [Reason.RATE_LIMITED, Code.UNAVAILABLE, ResourceExhaustedError, true],
  [Reason.ALL_PROVIDERS_FAILED, Code.UNAVAILABLE, UnavailableError, false],
  [Reason.DRAINING, Code.UNAVAILABLE, UnavailableError, true],
  ["TOO_NEW", Code.UNAVAILABLE, UnavailableError, true],
  ["toString", Code.NOT_FOUND, NotFoundError, false],
] as const) {
  test(`${reason} of ${Code[code]} has its family`, () => {
    const error = errorFromRpc(failure(code, [errorInfo(reason)]));

    assert.deepEqual([error.constructor, error.reason, error.retryable], [family, reason, retryable]);
  });
}

test("the gateway's word on retries counts most", () => {
  const error = errorFromRpc(failure(Code.UNAVAILABLE, [errorInfo("DRAINING", { retryable: "false" })]));

  assert.equal(error.retryable, false);
});

test("another domain's reason is not taken for ours", () => {
  const error = errorFromRpc(failure(Code.FAILED_PRECONDITION, [errorInfo("RATE_LIMITED", {}, "proxy.example")]));

  assert.deepEqual([error.constructor, error.retryable], [FailedPreconditionError, false]);
});

for (const bytes of [Buffer.of(0xff, 0xff), Buffer.from("1a04" + "1202ffff", "hex"), Buffer.from("1aff", "hex")]) {
  test(`damaged details leave code and message: ${bytes.toString("hex")}`, () => {
    const cause = failure(Code.NOT_FOUND, bytes);
    cause.metadata.set("x-request-id", "req_12345");

    const error = errorFromRpc(cause);

    assert.deepEqual([error.constructor, error.message], [NotFoundError, "of the RPC"]);
    assert.equal(error.requestId, "req_12345");
  });
}

test("a detail that is damaged leaves the others", () => {
  const damaged = { ...errorInfo("x"), value: Uint8Array.of(0x0a, 0xff) };

  const error = errorFromRpc(
    failure(Code.INTERNAL, [damaged, packed("RequestInfo", RequestInfo, { requestId: "req_12345", servingData: "" })]),
  );

  assert.deepEqual([error.constructor, error.reason, error.requestId], [InternalError, "INTERNAL", "req_12345"]);
});

test("what a signal says is the cause of what it cancels", () => {
  const error = errorFromRpc(failure(Code.CANCELLED), undefined, AbortSignal.abort("enough"));

  assert.deepEqual([error.constructor, error.cause], [CancelledError, "enough"]);
});
