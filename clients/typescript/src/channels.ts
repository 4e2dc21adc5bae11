/** How the gateway is reached: one endpoint's address, credentials, channel options and headers. */

import { BlockList, isIP } from "node:net";
import { unescape } from "node:querystring";
import { type ChannelCredentials, type ChannelOptions, credentials, Metadata } from "@grpc/grpc-js";

/** Header name to value: text, or bytes where the name ends with "-bin". */
export type MetadataEntries = Readonly<Record<string, string | Uint8Array>>;

/** How a client reaches its gateway. */
export interface ConnectionOptions {
  /** Sent with each call. In plaintext only on this machine, unless `allowInsecureKey`. */
  readonly apiKey?: string | undefined;
  /** Use TLS, with the roots that Node.js brings. */
  readonly tls?: boolean | undefined;
  /** PEM; use TLS, with these roots. */
  readonly rootCertificates?: string | Uint8Array | undefined;
  /** Used as they are, as for mutual TLS; `tls` and `rootCertificates` do not count then. */
  readonly channelCredentials?: ChannelCredentials | undefined;
  /** Send the key over a network in plaintext. */
  readonly allowInsecureKey?: boolean | undefined;
  /** Headers of every call. */
  readonly metadata?: MetadataEntries | undefined;
  /** gRPC channel options, which win over this client's own. */
  readonly channelOptions?: ChannelOptions | undefined;
}

/** Headers that may come with a call, beside those of the client. */
export interface HeaderOptions {
  /** Further headers of this call. */
  readonly metadata?: MetadataEntries | undefined;
  /** Of the caller's choice, 8 to 64 of A-Z, a-z, 0-9, _ and -. Without one the gateway mints one. */
  readonly requestId?: string | undefined;
  /** W3C trace context, also carried to the provider. */
  readonly traceparent?: string | undefined;
  /** W3C trace state. */
  readonly tracestate?: string | undefined;
}

/** Everything a channel is made of, and the headers of every call. */
export interface Endpoint {
  readonly target: string;
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
  readonly metadata: Metadata;
}

const COMPLETIONS = "trunkline.v1.CompletionService";
const CATALOG = "trunkline.v1.CatalogService";

/** What Trunkline publishes for its clients. Its timeouts are upper bounds. */
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [
        { service: COMPLETIONS, method: "Complete" },
        { service: COMPLETIONS, method: "CompleteUnary" },
      ],
      timeout: "600s",
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
    {
      name: [{ service: CATALOG }],
      timeout: "10s",
      waitForReady: true,
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.1s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
  retryThrottling: { maxTokens: 10, tokenRatio: 0.1 },
  // For C-core and others: grpc-js does not check health.
  healthCheckConfig: { serviceName: COMPLETIONS },
};

const MIB = 1024 * 1024;
const OPTIONS: ChannelOptions = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  // The gateway takes 32 MiB, and its PAYLOAD_TOO_LARGE tells more than a limit here would.
  "grpc.max_send_message_length": -1,
  "grpc.max_receive_message_length": 64 * MIB,
  // A call whose request does not fit in here is never retried; the library's default is 1 MiB for each call and 16 MiB
  // for all of a channel, and what is kept for a retry is a request that is in memory anyway.
  "grpc.per_rpc_retry_buffer_size": 33 * MIB,
  "grpc.retry_buffer_size": Number.MAX_SAFE_INTEGER,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

const RESERVED_HEADERS = /^(grpc-|authorization$)/;
const HEADER_NAME = /^[0-9a-z_.-]+$/;
const HEADER_TEXT = /^[\x20-\x7e]*$/;
const API_KEY = /^[\x21-\x7e]+$/;
// Nothing that may be read as another part of an address: no path, query, user or escape.
const PLAIN_ADDRESS =
  /^(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([^\s:/?#@%[\]\\]+)(?::\d+)?|([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+))$/;
const REQUEST_ID = /^[A-Za-z0-9_-]{8,64}$/;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/**
 * Checks a client's arguments and puts them together.
 *
 * @throws TypeError - The key cannot be sent as it is, or would leave this machine in plaintext, or a header is invalid.
 * No message repeats a secret.
 */
export function endpoint(target: string, given: ConnectionOptions): Endpoint {
  const { apiKey, tls = false, rootCertificates, allowInsecureKey = false, metadata = {}, channelOptions } = given;
  if (apiKey !== undefined && !API_KEY.test(apiKey)) {
    throw new TypeError("apiKey must be printable ASCII without spaces or line ends");
  }
  const headers = checkedMetadata(metadata);
  const secure =
    given.channelCredentials ??
    (tls || rootCertificates !== undefined
      ? credentials.createSsl(rootCertificates === undefined ? null : Buffer.from(rootCertificates))
      : undefined);
  if (secure !== undefined) {
    return {
      target,
      // Throws where the caller's own credentials are no secure ones.
      credentials: apiKey === undefined ? secure : credentials.combineChannelCredentials(secure, bearer(apiKey)),
      options: { ...OPTIONS, ...channelOptions },
      metadata: headers,
    };
  }
  const isHere = isLocal(target);
  if (apiKey !== undefined) {
    if (!isHere && !allowInsecureKey) {
      throw new TypeError(
        `the key would travel to ${target} in plaintext: use tls or rootCertificates, or say allowInsecureKey`,
      );
    }
    headers.set("authorization", `Bearer ${apiKey}`);
  }
  return {
    target,
    credentials: credentials.createInsecure(),
    // A proxy of the environment's would carry the call, and the key, off this machine.
    options: { ...OPTIONS, ...(isHere && { "grpc.enable_http_proxy": 0 }), ...channelOptions },
    metadata: headers,
  };
}

/**
 * The headers of one call: the client's, then the call's own.
 *
 * @throws TypeError - A header is not one, or the gateway would not take the request id and mint another.
 */
export function callMetadata(base: Metadata, path: string, options: HeaderOptions): Metadata {
  const { metadata: own, requestId, traceparent, tracestate } = options;
  if (requestId !== undefined && !REQUEST_ID.test(requestId)) {
    throw new TypeError("requestId must be 8 to 64 of A-Z, a-z, 0-9, _ and -");
  }
  const headers = base.clone();
  headers.merge(checkedMetadata({ ...own, "x-request-id": requestId, traceparent, tracestate }));
  // grpc-js reads waitForReady of a service config, but acts on a call's only.
  headers.setOptions({ waitForReady: path.startsWith(`/${CATALOG}/`) });
  return headers;
}

/**
 * Does every address of this gRPC target stay on this machine? Of names only localhost does. Not "unix-abstract:", which
 * grpc-js takes for the name of a host.
 */
export function isLocal(target: string): boolean {
  const [, scheme, rest = ""] = /^([^:]*):(.*)$/s.exec(target) ?? [];
  switch (scheme) {
    case "unix":
      return true;
    case "ipv4":
    case "ipv6":
      return unescape(rest).replace(/^\/+/, "").split(",").every(isLoopback);
    case "dns": {
      const [, nameServer = "", address = rest] = /^\/\/([^/?#]*)\/(.*)$/s.exec(rest) ?? [];
      // A name server of the caller's may say anything, of localhost too.
      return isLoopback(address) && (nameServer === "" || isIP(hostOf(address)) !== 0);
    }
    default:
      return isLoopback(target);
  }
}

function isLoopback(address: string): boolean {
  const host = hostOf(address);
  const version = isIP(host);
  return version === 0 ? host.toLowerCase() === "localhost" : LOOPBACK.check(host, version === 4 ? "ipv4" : "ipv6");
}

/** The host of "host:port", "[v6]:port", or of an address without a port; "" of anything else. */
function hostOf(address: string): string {
  const [, bracketed, name, bare] = PLAIN_ADDRESS.exec(address) ?? [];
  return bracketed ?? name ?? bare ?? "";
}

function bearer(apiKey: string) {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${apiKey}`);
  return credentials.createFromMetadataGenerator((_, give) => give(null, metadata));
}

/** Headers as the gRPC library takes them. It would refuse bad ones too, but repeats their values. */
function checkedMetadata(entries: Readonly<Record<string, string | Uint8Array | undefined>>): Metadata {
  const headers = new Metadata();
  for (const [given, value] of Object.entries(entries)) {
    if (value === undefined) {
      continue;
    }
    const name = given.toLowerCase();
    if (!HEADER_NAME.test(name) || RESERVED_HEADERS.test(name)) {
      // "authorization" is the key's: as a header it would pass by the check for plaintext.
      throw new TypeError(`${JSON.stringify(name)} cannot be sent as a header; a key is given as apiKey`);
    }
    if ((typeof value !== "string") !== name.endsWith("-bin")) {
      throw new TypeError(`${name}: bytes need a name that ends with -bin, and text one that does not`);
    }
    if (typeof value === "string" && !HEADER_TEXT.test(value)) {
      throw new TypeError(`${name}: only printable ASCII can be sent`);
    }
    headers.add(name, typeof value === "string" ? value : Buffer.from(value));
  }
  return headers;
}
