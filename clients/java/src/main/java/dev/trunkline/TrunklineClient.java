package dev.trunkline;

import dev.trunkline.v1.CancelJobRequest;
import dev.trunkline.v1.CatalogServiceGrpc;
import dev.trunkline.v1.CompleteRequest;
import dev.trunkline.v1.CompleteUnaryRequest;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionServiceGrpc;
import dev.trunkline.v1.CompletionSpec;
import dev.trunkline.v1.Conversation;
import dev.trunkline.v1.ConversationServiceGrpc;
import dev.trunkline.v1.CreateConversationRequest;
import dev.trunkline.v1.CreateJobRequest;
import dev.trunkline.v1.DeleteConversationRequest;
import dev.trunkline.v1.GetConversationRequest;
import dev.trunkline.v1.GetJobRequest;
import dev.trunkline.v1.GetModelRequest;
import dev.trunkline.v1.Job;
import dev.trunkline.v1.JobServiceGrpc;
import dev.trunkline.v1.ListConversationsRequest;
import dev.trunkline.v1.ListConversationsResponse;
import dev.trunkline.v1.ListJobsRequest;
import dev.trunkline.v1.ListJobsResponse;
import dev.trunkline.v1.ListMessagesRequest;
import dev.trunkline.v1.ListMessagesResponse;
import dev.trunkline.v1.ListModelsRequest;
import dev.trunkline.v1.ListModelsResponse;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.Model;
import dev.trunkline.v1.PreviewRouteRequest;
import dev.trunkline.v1.PreviewRouteResponse;
import dev.trunkline.v1.StoredMessage;
import dev.trunkline.v1.StreamOptions;
import dev.trunkline.v1.WatchJobRequest;
import dev.trunkline.v1.WatchJobResponse;
import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.List;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * A connection to one gateway, for all threads, to be closed. Its calls block.
 *
 * <p>Every call throws {@link TrunklineException}. One that fails before its answer begins is tried
 * again as the gateway's published service config says; nothing here adds to that. Interrupting a
 * thread that waits for an answer cancels the call; the thread gets a {@link CancelledException},
 * its interrupt flag still set.
 */
public final class TrunklineClient implements AutoCloseable {
  private final Connection connection;
  private final CallSettings settings;
  private final Channel channel;
  private final CompletionServiceGrpc.CompletionServiceBlockingStub completions;
  private final CatalogServiceGrpc.CatalogServiceBlockingStub catalog;
  private final JobServiceGrpc.JobServiceBlockingStub jobs;
  private final ConversationServiceGrpc.ConversationServiceBlockingStub conversations;

  private TrunklineClient(Connection connection, CallSettings settings) {
    this.connection = connection;
    this.settings = settings;
    channel = connection.with(settings);
    completions = CompletionServiceGrpc.newBlockingStub(channel);
    catalog = CatalogServiceGrpc.newBlockingStub(channel);
    jobs = JobServiceGrpc.newBlockingStub(channel);
    conversations = ConversationServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Begins a client.
   *
   * @param target {@code host:port}, or any target of gRPC for Java
   */
  public static ClientBuilder<TrunklineClient> builder(String target) {
    return new ClientBuilder<>(
        target, connection -> new TrunklineClient(connection, CallSettings.NONE));
  }

  /**
   * The same connection, with settings for the calls that are made through what is returned, in
   * place of any given before. Closing one closes both.
   */
  public TrunklineClient with(CallSettings settings) {
    return new TrunklineClient(connection, settings);
  }

  /**
   * For stubs of the caller's own, as those of the services that have no methods here. Their calls
   * have the same credentials, headers and timeout; they throw {@link StatusRuntimeException},
   * which {@link TrunklineException#from} reads.
   */
  public Channel channel() {
    return channel;
  }

  /** One whole answer. */
  public Completion complete(String prompt) {
    return complete(prompt, SpecOptions.NONE);
  }

  /** One whole answer. */
  public Completion complete(String prompt, SpecOptions options) {
    return complete(options.spec(prompt));
  }

  /** One whole answer to a conversation, its oldest message first. */
  public Completion complete(List<Message> messages, SpecOptions options) {
    return complete(options.spec(messages));
  }

  /** One whole answer. */
  public Completion complete(CompletionSpec spec) {
    var request =
        CompleteUnaryRequest.newBuilder()
            .setSpec(spec)
            .setIdempotencyKey(settings.idempotencyKey())
            .build();
    return call(() -> completions.completeUnary(request)).getCompletion();
  }

  /** One answer as it is made. Errors are thrown by the stream, not here. */
  public CompletionStream stream(String prompt) {
    return stream(prompt, SpecOptions.NONE);
  }

  /** One answer as it is made. Errors are thrown by the stream, not here. */
  public CompletionStream stream(String prompt, SpecOptions options) {
    return stream(options.spec(prompt));
  }

  /** One answer to a conversation as it is made. Errors are thrown by the stream, not here. */
  public CompletionStream stream(List<Message> messages, SpecOptions options) {
    return stream(options.spec(messages));
  }

  /** One answer as it is made. Errors are thrown by the stream, not here. */
  public CompletionStream stream(CompletionSpec spec) {
    return stream(CompleteRequest.newBuilder().setSpec(spec));
  }

  /**
   * One answer as it is made. Errors are thrown by the stream, not here.
   *
   * @param streamOptions of which a heartbeat turns retries off
   */
  public CompletionStream stream(CompletionSpec spec, StreamOptions streamOptions) {
    return stream(CompleteRequest.newBuilder().setSpec(spec).setStreamOptions(streamOptions));
  }

  private CompletionStream stream(CompleteRequest.Builder begun) {
    var request = begun.setIdempotencyKey(settings.idempotencyKey()).build();
    return new CompletionStream(new BlockingCall<>(() -> completions.complete(request)));
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public PreviewRouteResponse previewRoute(String prompt) {
    return previewRoute(prompt, SpecOptions.NONE);
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public PreviewRouteResponse previewRoute(String prompt, SpecOptions options) {
    return previewRoute(options.spec(prompt));
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public PreviewRouteResponse previewRoute(List<Message> messages, SpecOptions options) {
    return previewRoute(options.spec(messages));
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public PreviewRouteResponse previewRoute(CompletionSpec spec) {
    return previewRoute(PreviewRouteRequest.newBuilder().setSpec(spec).build());
  }

  /**
   * Who would answer, best first, then who would not and why. No provider is asked.
   *
   * @param request may name an earlier request, whose decision is then told as it was made
   */
  public PreviewRouteResponse previewRoute(PreviewRouteRequest request) {
    return call(() -> completions.previewRoute(request));
  }

  /** Every model, route and mode of the catalog; pages are fetched as they are needed. */
  public Stream<Model> listModels() {
    return listModels(0);
  }

  /**
   * Every model, route and mode of the catalog; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Stream<Model> listModels(int pageSize) {
    var request = ListModelsRequest.newBuilder().setPageSize(pageSize);
    return pages(
        token -> catalog.listModels(request.setPageToken(token).build()),
        ListModelsResponse::getNextPageToken,
        ListModelsResponse::getModelsList);
  }

  /**
   * One entry of the catalog.
   *
   * @throws NotFoundException it names the nearest known id
   */
  public Model getModel(String modelId) {
    var request = GetModelRequest.newBuilder().setModelId(modelId).build();
    return call(() -> catalog.getModel(request)).getModel();
  }

  /**
   * Asks for work that outlives this call; it is kept when this returns.
   *
   * @param kind completion, research or video
   */
  public Job createJob(String kind, CompletionSpec spec) {
    return createJob(kind, spec, "");
  }

  /**
   * Asks for work that outlives this call; it is kept when this returns.
   *
   * @param kind completion, research or video
   * @param callbackUrl is told when the job has ended
   */
  public Job createJob(String kind, CompletionSpec spec, String callbackUrl) {
    var request =
        CreateJobRequest.newBuilder()
            .setKind(kind)
            .setSpec(spec)
            .setIdempotencyKey(settings.idempotencyKey())
            .setCallbackUrl(callbackUrl)
            .build();
    return call(() -> jobs.createJob(request)).getJob();
  }

  /**
   * A job as it is now, with its result once it has ended.
   *
   * @throws NotFoundException no such job
   */
  public Job getJob(String jobId) {
    var request = GetJobRequest.newBuilder().setJobId(jobId).build();
    return call(() -> jobs.getJob(request)).getJob();
  }

  /**
   * The caller's jobs without their results, newest first; pages are fetched as they are needed.
   */
  public Stream<Job> listJobs() {
    return listJobs(0);
  }

  /**
   * The caller's jobs without their results, newest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Stream<Job> listJobs(int pageSize) {
    var request = ListJobsRequest.newBuilder().setPageSize(pageSize);
    return pages(
        token -> jobs.listJobs(request.setPageToken(token).build()),
        ListJobsResponse::getNextPageToken,
        ListJobsResponse::getJobsList);
  }

  /**
   * Ends a job; one that has ended stays as it is.
   *
   * @throws NotFoundException no such job
   */
  public Job cancelJob(String jobId) {
    var request = CancelJobRequest.newBuilder().setJobId(jobId).build();
    return call(() -> jobs.cancelJob(request)).getJob();
  }

  /** What has happened to a job, then what happens, until it has ended. */
  public Stream<WatchJobResponse> watchJob(String jobId) {
    return watchJob(jobId, 0);
  }

  /**
   * What has happened to a job after that event, then what happens, until the job has ended. To be
   * closed where it is left early, which cancels the call. Broken off, it is called again with the
   * number of the last event.
   */
  public Stream<WatchJobResponse> watchJob(String jobId, long afterSequence) {
    var request =
        WatchJobRequest.newBuilder().setJobId(jobId).setAfterSequence(afterSequence).build();
    var events = new BlockingCall<>(() -> jobs.watchJob(request));
    return stream(events).onClose(events::close);
  }

  /** A conversation in which nothing was said yet; its id is a completion's conversation id. */
  public Conversation createConversation() {
    return createConversation("", "");
  }

  /**
   * A conversation in which nothing was said yet; its id is a completion's conversation id.
   *
   * @param title at most 256 characters
   * @param metadataJson empty, or a JSON object of at most 16 KiB
   */
  public Conversation createConversation(String title, String metadataJson) {
    var request =
        CreateConversationRequest.newBuilder()
            .setTitle(title)
            .setMetadataJson(metadataJson)
            .setIdempotencyKey(settings.idempotencyKey())
            .build();
    return call(() -> conversations.createConversation(request)).getConversation();
  }

  /**
   * What is known of a conversation, without what was said in it.
   *
   * @throws NotFoundException it is not there, or not the key's organisation's
   */
  public Conversation getConversation(String conversationId) {
    var request = GetConversationRequest.newBuilder().setConversationId(conversationId).build();
    return call(() -> conversations.getConversation(request)).getConversation();
  }

  /** Those of the key's organisation, newest first; pages are fetched as they are needed. */
  public Stream<Conversation> listConversations() {
    return listConversations(0);
  }

  /**
   * Those of the key's organisation, newest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Stream<Conversation> listConversations(int pageSize) {
    var request = ListConversationsRequest.newBuilder().setPageSize(pageSize);
    return pages(
        token -> conversations.listConversations(request.setPageToken(token).build()),
        ListConversationsResponse::getNextPageToken,
        ListConversationsResponse::getConversationsList);
  }

  /** What was said, oldest first; pages are fetched as they are needed. */
  public Stream<StoredMessage> listMessages(String conversationId) {
    return listMessages(conversationId, 0);
  }

  /**
   * What was said, oldest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Stream<StoredMessage> listMessages(String conversationId, int pageSize) {
    var request =
        ListMessagesRequest.newBuilder().setConversationId(conversationId).setPageSize(pageSize);
    return pages(
        token -> conversations.listMessages(request.setPageToken(token).build()),
        ListMessagesResponse::getNextPageToken,
        ListMessagesResponse::getMessagesList);
  }

  /**
   * Deletes a conversation and all that was said in it.
   *
   * @throws NotFoundException it is not there, or not the key's organisation's
   */
  public void deleteConversation(String conversationId) {
    var request = DeleteConversationRequest.newBuilder().setConversationId(conversationId).build();
    call(() -> conversations.deleteConversation(request));
  }

  /** Closes the connection and cancels the calls that still run. */
  @Override
  public void close() {
    connection.close();
  }

  private static <T> T call(Supplier<T> stub) {
    try {
      return stub.get();
    } catch (StatusRuntimeException error) {
      throw TrunklineException.from(error);
    }
  }

  private static <P, T> Stream<T> pages(
      Function<String, P> fetch, Function<P, String> nextToken, Function<P, List<T>> items) {
    var pages = new Pages<P>(token -> call(() -> fetch.apply(token)), nextToken);
    return stream(pages).flatMap(page -> items.apply(page).stream());
  }

  private static <T> Stream<T> stream(Iterator<T> items) {
    return StreamSupport.stream(
        Spliterators.spliteratorUnknownSize(items, Spliterator.ORDERED), false);
  }
}
