/** An answer as it is made: typed events, the text alone, or the whole of it at the end. */

import type { ClientReadableStream, Metadata, ServiceError } from "@grpc/grpc-js";
import { AbortedError, errorFromRpc, InternalError, Reason, type TrunklineError } from "./errors.js";
import { CompletionFolder } from "./folding.js";
import type { Completion } from "./v1/trunkline/v1/completion.js";
import type { CompleteResponse } from "./v1/trunkline/v1/completion_event.js";

const READ_AHEAD_BYTES = 1024 * 1024;

/**
 * The messages of one server-streaming call, taken in batches as they came.
 *
 * They are read ahead, up to a limit at which the gateway has to wait: grpc-js lets a status that is not OK overtake the
 * messages before it that were not read yet (https://github.com/grpc/grpc-node/issues/2764).
 */
export class MessageReader<T> {
  readonly #call: ClientReadableStream<Buffer>;
  readonly #decode: (bytes: Buffer) => T;
  #batch: Buffer[] = [];
  #taken = 0;
  #ahead: Buffer[] = [];
  #aheadBytes = 0;
  #initial: Metadata | undefined;
  #error: TrunklineError | undefined;
  #hole: InternalError | undefined;
  #isOver = false;
  #waiting: (() => void)[] = [];

  constructor(call: ClientReadableStream<Buffer>, decode: (bytes: Buffer) => T, signal: AbortSignal | undefined) {
    this.#call = call;
    this.#decode = decode;
    call.on("metadata", (metadata: Metadata) => {
      this.#initial = metadata;
    });
    call.on("data", (bytes: Buffer) => {
      this.#ahead.push(bytes);
      this.#aheadBytes += bytes.length;
      if (this.#aheadBytes >= READ_AHEAD_BYTES) {
        call.pause();
      }
      this.#wake();
    });
    call.on("error", (error: ServiceError) => {
      this.#error ??= errorFromRpc(error, this.#initial, signal);
    });
    // Comes after all messages, and also after an error.
    call.on("end", () => {
      this.#isOver = true;
      this.#wake();
    });
  }

  /** The next message if it is here already. */
  take(): T | undefined {
    if (this.#hole !== undefined) {
      throw this.#hole;
    }
    if (this.#taken === this.#batch.length) {
      if (this.#ahead.length === 0) {
        return undefined;
      }
      this.#batch = this.#ahead;
      this.#taken = 0;
      this.#ahead = [];
      this.#aheadBytes = 0;
      this.#call.resume();
    }
    return this.#decoded(this.#batch[this.#taken++]!);
  }

  /** The next message, or nothing after the last. */
  async next(): Promise<T | undefined> {
    for (;;) {
      const message = this.take();
      if (message !== undefined) {
        return message;
      }
      if (this.#isOver) {
        if (this.#error !== undefined) {
          throw this.#error;
        }
        return undefined;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Cancels the call unless it has ended. */
  cancel(): void {
    this.#call.cancel();
  }

  #decoded(bytes: Buffer): T {
    try {
      return this.#decode(bytes);
    } catch (error) {
      this.cancel();
      // What lies ahead is not read past a hole: the answer would look whole.
      this.#hole = new InternalError("a message of the gateway's could not be decoded", { cause: error });
      throw this.#hole;
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) {
      resolve();
    }
  }
}

/**
 * One streamed answer: an async iterator of events, of one reader. Made by `Client.stream`.
 *
 * Iteration throws {@link TrunklineError}, after the events that came before it. It throws {@link AbortedError} with the
 * reason `STREAM_INTERRUPTED` also where the stream ends in good order but without its last event: an answer is never
 * cut off silently.
 *
 * A `for await` loop that is left early cancels the call, so that nobody pays for tokens that nobody reads. What was
 * read until then is in {@link CompletionStream.snapshot}.
 */
export class CompletionStream implements AsyncIterableIterator<CompleteResponse, undefined, undefined>, AsyncDisposable {
  readonly #messages: MessageReader<CompleteResponse>;
  readonly #folder = new CompletionFolder();

  /** @internal */
  constructor(messages: MessageReader<CompleteResponse>) {
    this.#messages = messages;
  }

  async next(): Promise<IteratorResult<CompleteResponse, undefined>> {
    const event = this.#messages.take() ?? (await this.#messages.next());
    if (event !== undefined) {
      this.#folder.feed(event);
      return { done: false, value: event };
    }
    if (!this.#folder.isCompleted) {
      throw interrupted("the stream ended without its last event");
    }
    return { done: true, value: undefined };
  }

  /** What a loop calls that is left early: as {@link CompletionStream.close}. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The text of one choice as it comes; none of the pieces is empty.
   *
   * @throws AbortedError - With the reason `STREAM_INTERRUPTED` where text that was yielded already was taken back by a
   * StreamReset, which happens only under `Recovery.RESTART`. Who asks for that iterates the events.
   */
  async *textDeltas(choiceIndex = 0): AsyncGenerator<string, void, undefined> {
    const hopsHandedOut = new Set<number>();
    for await (const { event } of this) {
      if (event?.$case === "textDelta" && event.value.choiceIndex === choiceIndex) {
        hopsHandedOut.add(this.#folder.hop);
        if (event.value.text) {
          yield event.value.text;
        }
      } else if (event?.$case === "streamReset" && hopsHandedOut.has(event.value.hop)) {
        throw interrupted("text that was handed out was taken back by a reset");
      }
    }
  }

  /** Reads what is left of the stream, and gives the whole answer, messages included. */
  async completion(): Promise<Completion> {
    while (!(await this.next()).done);
    return this.#folder.completion();
  }

  /** The answer as far as it was read; also after an error. */
  snapshot(): Completion {
    return this.#folder.completion();
  }

  /** Cancels the call unless it has ended. May be called more than once, also while somebody reads. */
  close(): void {
    this.#messages.cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function interrupted(message: string): AbortedError {
  return new AbortedError(message, { reason: Reason.STREAM_INTERRUPTED });
}
