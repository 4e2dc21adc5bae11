/**
 * Trunkline's client.
 *
 * ```ts
 * import { Client, text } from "@trunkline/client";
 *
 * await using client = new Client("127.0.0.1:50051");
 * console.log(text(await client.complete("Why is the sky blue?")));
 * ```
 *
 * @packageDocumentation
 */

// Of gRPC's own: `credentials` for mutual TLS, and the codes of errors. Two copies of the library do not know each
// other's objects, so that its users take them from here.
export { credentials, status as Code } from "@grpc/grpc-js";
export type { ConnectionOptions, HeaderOptions, MetadataEntries } from "./channels.js";
export {
  type CallOptions,
  Client,
  type ClientOptions,
  type ConversationOptions,
  type JobOptions,
  type ListOptions,
  type RequestOptions,
  type StreamRequestOptions,
  type StubConstructor,
} from "./client.js";
export * from "./errors.js";
export { CompletionFolder, fold } from "./folding.js";
export * from "./messages.js";
export { type Prompt, specFrom, type SpecOptions } from "./specs.js";
export { CompletionStream } from "./streams.js";
