import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { Metadata } from "@grpc/grpc-js";
import { Client, credentials } from "@trunkline/client";
import { callMetadata, endpoint, isLocal } from "../src/channels.js";

const KEY = "sk-very-secret";
const COMPLETE = "/trunkline.v1.CompletionService/Complete";

/** What the act throws, which repeats no secret. */
function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert(error instanceof TypeError, String(error));
    assert(!inspect(error).includes(KEY));
    return error.message;
  }
  return "";
}

describe("a key in plaintext", () => {
  for (const target of [
    "gateway.example:50051",
    "dns:///gateway.example:50051",
    "dns://192.0.2.1/localhost:50051",
    "10.0.0.1:50051",
    "[2001:db8::1]:50051",
    "[::ffff:10.0.0.1]:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "localhost.example:50051",
    "127.0.0.1.example:50051",
    "127.1:50051",
    "unix-abstract:trunkline",
    "xds:///localhost",
    "unix",
    "",
  ]) {
    test(`does not travel to ${target}`, () => {
      assert.equal(isLocal(target), false);
      assert.match(refusal(() => new Client(target, { apiKey: KEY })), /plaintext/);
    });
  }

  for (const target of [
    "127.0.0.1:50051",
    "127.8.8.8:50051",
    "localhost:50051",
    "LOCALHOST",
    "[::1]:50051",
    "[0:0:0:0:0:0:0:1]:50051",
    "::1",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "dns://192.0.2.1/127.0.0.1:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:1",
    "ipv6:[::1]:50051",
    "ipv6:%5B::1%5D:50051",
    "unix:/run/trunkline.sock",
    "unix:///run/trunkline.sock",
  ]) {
    test(`may be used on this machine, at ${target}`, () => {
      assert.equal(isLocal(target), true);
      assert.deepEqual(endpoint(target, { apiKey: KEY }).metadata.get("authorization"), [`Bearer ${KEY}`]);
    });
  }

  test("travels where its owner insists", () => {
    const made = endpoint("gateway.example:50051", { apiKey: KEY, allowInsecureKey: true });

    assert.deepEqual(made.metadata.get("authorization"), [`Bearer ${KEY}`]);
  });
});

test("over TLS the key is no header of the client's but goes with the credentials", () => {
  const made = endpoint("gateway.example:443", { apiKey: KEY, tls: true });

  assert.equal(made.credentials._isSecure(), true);
  assert.deepEqual(made.metadata.getMap(), {});
});

test("credentials that are not secure carry no key", () => {
  const insecure = credentials.createInsecure();

  assert.throws(() => endpoint("127.0.0.1:1", { apiKey: KEY, channelCredentials: insecure }), /insecure/);
});

for (const apiKey of ["", `${KEY}\n`, `${KEY} `, `${KEY}é`, `${KEY}\r\nx-evil: 1`]) {
  test(`a key that is no header is refused without repeating it: ${JSON.stringify(apiKey.replace(KEY, "..."))}`, () => {
    assert.match(refusal(() => new Client("127.0.0.1:1", { apiKey })), /apiKey/);
  });
}

for (const [name, value] of [
  ["bad name", "x"],
  ["", "x"],
  ["grpc-timeout", "1S"],
  ["Authorization", `Bearer ${KEY}`],
  ["x-text", new Uint8Array(1)],
  ["x-bin", "text"],
  ["x-text", `${KEY}\n`],
] as const) {
  test(`a header that is none is refused without repeating it: ${name}`, () => {
    assert.match(refusal(() => new Client("127.0.0.1:1", { metadata: { [name]: value } })), /header|ASCII|-bin/);
    assert.match(
      refusal(() => callMetadata(new Metadata(), COMPLETE, { metadata: { [name]: value } })),
      /header|ASCII|-bin/,
    );
  });
}

test("a call's headers come after the client's, and leave them as they are", () => {
  const base = endpoint("127.0.0.1:1", { metadata: { "X-Team": "a" } }).metadata;

  const headers = callMetadata(base, COMPLETE, {
    requestId: "req_of-mine_1",
    traceparent: "00-1-2-01",
    metadata: { "x-team": "b", "x-state-bin": Uint8Array.of(0, 255) },
  });

  assert.deepEqual(headers.toJSON(), {
    "x-team": ["a", "b"],
    "x-state-bin": [Buffer.of(0, 255)],
    "x-request-id": ["req_of-mine_1"],
    traceparent: ["00-1-2-01"],
  });
  assert.deepEqual(base.toJSON(), { "x-team": ["a"] });
});

test("a request id that the gateway would not take is refused", () => {
  assert.match(
    refusal(() => callMetadata(new Metadata(), COMPLETE, { requestId: "short" })),
    /requestId/,
  );
});

test("calls of the catalog alone wait for a connection", () => {
  const waits = (path: string) => callMetadata(new Metadata(), path, {}).getOptions().waitForReady;

  assert.deepEqual([waits("/trunkline.v1.CatalogService/GetModel"), waits(COMPLETE)], [true, false]);
});

test("a proxy of the environment's is used for other machines only", () => {
  const proxy = (target: string) => endpoint(target, {}).options["grpc.enable_http_proxy"];

  assert.deepEqual([proxy("localhost:1"), proxy("gateway.example:1")], [0, undefined]);
});

test("the caller's channel options win", () => {
  const { options } = endpoint("localhost:1", { channelOptions: { "grpc.keepalive_time_ms": 5 } });

  assert.equal(options["grpc.keepalive_time_ms"], 5);
});

test("a client that is shown shows no key", () => {
  const client = new Client("localhost:1", { apiKey: KEY });

  assert(!inspect(client, { depth: 9, showHidden: true }).includes(KEY));
  client.close();
});
