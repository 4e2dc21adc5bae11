/** The client. */

import {
  type CallOptions as RpcOptions,
  type ClientOptions as StubOptions,
  type ChannelCredentials,
  type Interceptor,
  type Metadata,
  type MethodDefinition,
  Client as Rpc,
  InterceptingCall,
  type ServiceError,
} from "@grpc/grpc-js";
import {
  callMetadata,
  type ConnectionOptions,
  endpoint,
  type HeaderOptions,
  type MetadataEntries,
} from "./channels.js";
import { CancelledError, errorFromRpc } from "./errors.js";
import { type Prompt, specFrom, type SpecOptions } from "./specs.js";
import { CompletionStream, MessageReader } from "./streams.js";
import { CatalogServiceService, Model } from "./v1/trunkline/v1/catalog_service.js";
import { Completion } from "./v1/trunkline/v1/completion.js";
import {
  CompletionServiceService,
  type PreviewRouteResponse,
  StreamOptions,
} from "./v1/trunkline/v1/completion_service.js";
import type { CompletionSpec } from "./v1/trunkline/v1/completion_spec.js";
import {
  Conversation,
  ConversationServiceService,
  type StoredMessage,
} from "./v1/trunkline/v1/conversation_service.js";
import { Job, JobServiceService, type WatchJobResponse } from "./v1/trunkline/v1/job_service.js";

/** How a client is made. */
export interface ClientOptions extends ConnectionOptions {
  /**
   * For a whole call that does not say. The service config ends completions after 600 s and catalog calls after 10 s in
   * any case.
   */
  readonly defaultTimeoutMs?: number | undefined;
}

/** What every call takes. */
export interface CallOptions {
  /** Aborted, the call is cancelled and fails with CancelledError, whose cause is the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** For the whole call, retries included. */
  readonly timeoutMs?: number | undefined;
  /** Further headers of this call. */
  readonly metadata?: MetadataEntries | undefined;
}

/** What a completion takes beside what is asked for. */
export interface RequestOptions extends CallOptions, HeaderOptions {
  /** At most 255 characters; the same request with the same key is answered once. */
  readonly idempotencyKey?: string | undefined;
}

/** What a streamed completion takes beside what is asked for. */
export interface StreamRequestOptions extends RequestOptions {
  /** Of these a heartbeat turns retries off. */
  readonly streamOptions?: Partial<StreamOptions> | undefined;
}

/** What every listing takes; time and headers are those of each page's call. */
export interface ListOptions extends CallOptions {
  /** 0: the gateway's default. */
  readonly pageSize?: number | undefined;
}

/** Options of a new job. */
export interface JobOptions extends CallOptions {
  /** The same key and request make the same job; without one each call makes one. */
  readonly idempotencyKey?: string | undefined;
  /** Is told when the job has ended. */
  readonly callbackUrl?: string | undefined;
}

/** Options of a new conversation. */
export interface ConversationOptions extends CallOptions {
  /** At most 256 characters. */
  readonly title?: string | undefined;
  /** A JSON object of at most 16 KiB. */
  readonly metadataJson?: string | undefined;
  /** At most 255 characters; with the same key one is made, for a day. */
  readonly idempotencyKey?: string | undefined;
}

/** A generated stub's constructor, as `CacheServiceClient` of `@trunkline/client/v1`. */
export type StubConstructor<Stub> = new (
  target: string,
  credentials: ChannelCredentials,
  options?: Partial<StubOptions>,
) => Stub;

/**
 * A connection to one gateway, closed by `close` or `await using`.
 *
 * Every call fails with a {@link TrunklineError}, or a TypeError for arguments that cannot be sent. A call that fails
 * before its answer begins is tried again as the gateway's published service config says; nothing here adds to that.
 */
export class Client implements AsyncDisposable {
  readonly #rpc: Rpc;
  readonly #target: string;
  readonly #credentials: ChannelCredentials;
  readonly #metadata: Metadata;
  readonly #defaultTimeoutMs: number;
  readonly #running = new Map<AbortSignal | undefined, Running>();
  #isClosed = false;

  /**
   * @param target - "host:port", or any gRPC target.
   *
   * @throws TypeError - The target is none, the key cannot be sent as it is, or would leave this machine in plaintext, or
   * a header is invalid.
   */
  constructor(target: string, { defaultTimeoutMs = 600_000, ...connection }: ClientOptions = {}) {
    const gateway = endpoint(target, connection);
    this.#target = gateway.target;
    this.#credentials = gateway.credentials;
    this.#metadata = gateway.metadata;
    this.#defaultTimeoutMs = defaultTimeoutMs;
    try {
      this.#rpc = new Rpc(gateway.target, gateway.credentials, gateway.options);
    } catch (error) {
      throw new TypeError((error as Error).message, { cause: error });
    }
  }

  /** One whole answer, to a prompt with options or to a whole spec. */
  async complete(prompt: Prompt, options?: RequestOptions & SpecOptions): Promise<Completion>;
  async complete(spec: CompletionSpec, options?: RequestOptions): Promise<Completion>;
  async complete(asked: Prompt | CompletionSpec, options: RequestOptions & SpecOptions = {}): Promise<Completion> {
    const { call, idempotencyKey, spec } = parted(asked, options);
    const request = { spec, idempotencyKey };
    const { completion } = await this.#unary(CompletionServiceService.completeUnary, request, call);
    return completion ?? Completion.create();
  }

  /**
   * One answer as it is made. The call begins at once, and what it fails with is thrown by the stream. Here is thrown only
   * what keeps it from beginning: a TypeError, and a CancelledError where the signal was aborted or the client closed.
   */
  stream(prompt: Prompt, options?: StreamRequestOptions & SpecOptions): CompletionStream;
  stream(spec: CompletionSpec, options?: StreamRequestOptions): CompletionStream;
  stream(asked: Prompt | CompletionSpec, given: StreamRequestOptions & SpecOptions = {}): CompletionStream {
    const { streamOptions: wanted, ...options } = given;
    const { call, idempotencyKey, spec } = parted(asked, options);
    const streamOptions = wanted && { ...StreamOptions.create(), ...wanted };
    const request = { spec, idempotencyKey, streamOptions };
    return new CompletionStream(this.#streaming(CompletionServiceService.complete, request, call));
  }

  /**
   * Who would answer, best first, then who would not and why. No provider is asked.
   *
   * With a `requestId` instead of a prompt: the decision of an earlier request, as it was made.
   */
  async previewRoute(prompt: Prompt, options?: CallOptions & SpecOptions): Promise<PreviewRouteResponse>;
  async previewRoute(
    asked: CompletionSpec | { readonly requestId: string },
    options?: CallOptions,
  ): Promise<PreviewRouteResponse>;
  async previewRoute(
    asked: Prompt | CompletionSpec | { readonly requestId: string },
    options: CallOptions & SpecOptions = {},
  ): Promise<PreviewRouteResponse> {
    const method = CompletionServiceService.previewRoute;
    if (typeof asked === "object" && "requestId" in asked) {
      return this.#unary(method, { spec: undefined, requestId: asked.requestId }, options);
    }
    const { call, spec } = parted(asked, options);
    return this.#unary(method, { spec, requestId: "" }, call);
  }

  /** Every model, route and mode of the catalog; pages are fetched as they are needed. */
  async *listModels({ pageSize = 0, ...call }: ListOptions = {}): AsyncGenerator<Model, void, undefined> {
    for await (const page of this.#pages(CatalogServiceService.listModels, { pageSize }, call)) {
      yield* page.models;
    }
  }

  /**
   * One entry of the catalog.
   *
   * @throws NotFoundError - It names the nearest known id.
   */
  async getModel(modelId: string, call?: CallOptions): Promise<Model> {
    const { model } = await this.#unary(CatalogServiceService.getModel, { modelId }, call);
    return model ?? Model.create();
  }

  /**
   * Asks for work that outlives this call; it is kept when this returns.
   *
   * @param kind - completion, research or video.
   * @param spec - See {@link specFrom} for one of a prompt and options.
   */
  async createJob(kind: string, spec: CompletionSpec, options: JobOptions = {}): Promise<Job> {
    const { idempotencyKey = "", callbackUrl = "", ...call } = options;
    const request = { kind, spec, idempotencyKey, callbackUrl };
    const { job } = await this.#unary(JobServiceService.createJob, request, call);
    return job ?? Job.create();
  }

  /**
   * A job as it is now, with its result once it has ended.
   *
   * @throws NotFoundError
   */
  async getJob(jobId: string, call?: CallOptions): Promise<Job> {
    const { job } = await this.#unary(JobServiceService.getJob, { jobId }, call);
    return job ?? Job.create();
  }

  /** The caller's jobs without their results, newest first; pages are fetched as they are needed. */
  async *listJobs({ pageSize = 0, ...call }: ListOptions = {}): AsyncGenerator<Job, void, undefined> {
    for await (const page of this.#pages(JobServiceService.listJobs, { pageSize }, call)) {
      yield* page.jobs;
    }
  }

  /**
   * Ends a job; one that has ended stays as it is.
   *
   * @throws NotFoundError
   */
  async cancelJob(jobId: string, call?: CallOptions): Promise<Job> {
    const { job } = await this.#unary(JobServiceService.cancelJob, { jobId }, call);
    return job ?? Job.create();
  }

  /**
   * What has happened after that event, then what happens, until the job has ended. A loop over it that is left early
   * cancels the call.
   *
   * Broken off, it is called again with the number of the last event.
   *
   * @throws NotFoundError
   */
  async *watchJob(
    jobId: string,
    { afterSequence = 0n, ...call }: CallOptions & { readonly afterSequence?: bigint | undefined } = {},
  ): AsyncGenerator<WatchJobResponse, void, undefined> {
    const messages = this.#streaming(JobServiceService.watchJob, { jobId, afterSequence }, call);
    try {
      for (let message; (message = await messages.next()) !== undefined; ) {
        yield message;
      }
    } finally {
      messages.cancel();
    }
  }

  /** A conversation in which nothing was said yet; its id is a completion's `conversationId`. */
  async createConversation(options: ConversationOptions = {}): Promise<Conversation> {
    const { title = "", metadataJson = "", idempotencyKey = "", ...call } = options;
    const request = { title, metadataJson, idempotencyKey };
    const { conversation } = await this.#unary(ConversationServiceService.createConversation, request, call);
    return conversation ?? Conversation.create();
  }

  /**
   * What is known of a conversation, without what was said in it.
   *
   * @throws NotFoundError - It is not there, or not the key's organisation's.
   */
  async getConversation(conversationId: string, call?: CallOptions): Promise<Conversation> {
    const { conversation } = await this.#unary(ConversationServiceService.getConversation, { conversationId }, call);
    return conversation ?? Conversation.create();
  }

  /** Those of the key's organisation, the newest first; pages are fetched as they are needed. */
  async *listConversations({ pageSize = 0, ...call }: ListOptions = {}): AsyncGenerator<Conversation, void, undefined> {
    for await (const page of this.#pages(ConversationServiceService.listConversations, { pageSize }, call)) {
      yield* page.conversations;
    }
  }

  /**
   * What was said, the oldest first; pages are fetched as they are needed.
   *
   * @throws NotFoundError
   */
  async *listMessages(
    conversationId: string,
    { pageSize = 0, ...call }: ListOptions = {},
  ): AsyncGenerator<StoredMessage, void, undefined> {
    const request = { conversationId, pageSize };
    for await (const page of this.#pages(ConversationServiceService.listMessages, request, call)) {
      yield* page.messages;
    }
  }

  /**
   * Deletes a conversation and all that was said in it.
   *
   * @throws NotFoundError
   */
  async deleteConversation(conversationId: string, call?: CallOptions): Promise<void> {
    await this.#unary(ConversationServiceService.deleteConversation, { conversationId }, call);
  }

  /**
   * A generated stub over this client's connection, with its key, headers and default timeout: for what has no method
   * here. Its errors are gRPC's own; {@link errorFromRpc} translates them. Close it with this client, not by itself.
   *
   * @example
   * ```ts
   * import { CacheServiceClient } from "@trunkline/client/v1";
   * const cache = client.stub(CacheServiceClient);
   * ```
   */
  stub<Stub>(kind: StubConstructor<Stub>): Stub {
    const asThisClient: Interceptor = (options, next) =>
      new InterceptingCall(next({ ...options, deadline: options.deadline ?? Date.now() + this.#defaultTimeoutMs }), {
        start: (own, listener, start) => {
          const metadata = this.#metadata.clone();
          metadata.merge(own);
          metadata.setOptions(own.getOptions());
          start(metadata, listener);
        },
      });
    return new kind(this.#target, this.#credentials, {
      channelOverride: this.#rpc.getChannel(),
      interceptors: [asThisClient],
    });
  }

  /** Closes the connection and cancels the calls that still run, but for those of stubs. No call can follow. */
  close(): void {
    this.#isClosed = true;
    for (const { cancelAll } of this.#running.values()) {
      cancelAll();
    }
    this.#rpc.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #unary<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: CallOptions & HeaderOptions = {},
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      let initial: Metadata | undefined;
      const ended = (error: ServiceError | null, response?: Response) =>
        error === null ? resolve(response as Response) : reject(errorFromRpc(error, initial, options.signal));
      const { path, responseDeserialize } = method;
      const outgoing = this.#outgoing(method, request, options);
      const call = this.#rpc.makeUnaryRequest(path, asIs, responseDeserialize, ...outgoing, ended);
      call.on("metadata", (metadata) => {
        initial = metadata;
      });
      this.#cancellable(call, options.signal);
    });
  }

  #streaming<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: CallOptions & HeaderOptions,
  ): MessageReader<Response> {
    const { path, responseDeserialize } = method;
    const call = this.#rpc.makeServerStreamRequest(path, asIs, asIs, ...this.#outgoing(method, request, options));
    this.#cancellable(call, options.signal);
    return new MessageReader(call, responseDeserialize, options.signal);
  }

  async *#pages<Request, Page extends { readonly nextPageToken: string }>(
    method: MethodDefinition<Request & { pageToken: string }, Page>,
    request: Request,
    options: CallOptions,
  ): AsyncGenerator<Page, void, undefined> {
    let pageToken = "";
    do {
      const page = await this.#unary(method, { ...request, pageToken }, options);
      yield page;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** What a call of gRPC's takes. The request is encoded here, where a value that cannot be is the caller's mistake. */
  #outgoing<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    { signal, timeoutMs = this.#defaultTimeoutMs, ...headers }: CallOptions & HeaderOptions,
  ) {
    if (this.#isClosed) {
      throw new CancelledError("the client was closed before the call began");
    }
    if (signal?.aborted) {
      throw new CancelledError("the signal was aborted before the call began", { cause: signal.reason });
    }
    if (Number.isNaN(timeoutMs)) {
      throw new TypeError("timeoutMs must be a number");
    }
    const metadata = callMetadata(this.#metadata, method.path, headers);
    const options: RpcOptions = { deadline: Date.now() + timeoutMs };
    return [encoded(method, request), metadata, options] as const;
  }

  #cancellable(
    call: Cancellable & { on(event: "status", listener: () => void): unknown },
    signal: AbortSignal | undefined,
  ): void {
    const running = this.#running.get(signal) ?? new Running();
    if (running.calls.size === 0) {
      this.#running.set(signal, running);
      signal?.addEventListener("abort", running.cancelAll);
    }
    running.calls.add(call);
    call.on("status", () => {
      running.calls.delete(call);
      if (running.calls.size === 0) {
        this.#running.delete(signal);
        signal?.removeEventListener("abort", running.cancelAll);
      }
    });
  }
}

interface Cancellable {
  cancel(): void;
}

/** The calls that one signal cancels, by one listener: Node.js takes more than ten for a leak, and complains. */
class Running {
  readonly calls = new Set<Cancellable>();
  readonly cancelAll = () => this.calls.forEach((call) => call.cancel());
}

/** The options of a call, apart from those of the spec, which they make with what is asked. */
function parted(asked: Prompt | CompletionSpec, options: RequestOptions & SpecOptions) {
  const { signal, timeoutMs, metadata, requestId, traceparent, tracestate, idempotencyKey = "", ...rest } = options;
  const call = { signal, timeoutMs, metadata, requestId, traceparent, tracestate };
  return { call, idempotencyKey, spec: specFrom(asked, rest) };
}

function encoded<Request, Response>(method: MethodDefinition<Request, Response>, request: Request): Buffer {
  try {
    return method.requestSerialize(request);
  } catch (error) {
    throw new TypeError("the request cannot be encoded: a value is not of its field's type", { cause: error });
  }
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}
