/**
 * The contract, as generated: a type and a codec of the same name for each message, and a stub for each service.
 *
 * A message is a plain object. `Message.create({...})` fills in what is left out, `Message.encode(message).finish()` and
 * `Message.decode(bytes)` are its form on the wire. The choice of a oneof is `{ $case, value }`. Fields and enum values
 * that are newer than this package are kept.
 *
 * @module
 */

export { Any } from "./v1/google/protobuf/any.js";
export { Duration } from "./v1/google/protobuf/duration.js";
export { Timestamp } from "./v1/google/protobuf/timestamp.js";
export { Status } from "./v1/google/rpc/status.js";
export * from "./v1/index.trunkline.v1.js";
