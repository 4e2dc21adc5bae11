package dev.trunkline;

import dev.trunkline.v1.CancelJobRequest;
import dev.trunkline.v1.CancelJobResponse;
import dev.trunkline.v1.CatalogServiceGrpc;
import dev.trunkline.v1.CompleteRequest;
import dev.trunkline.v1.CompleteUnaryRequest;
import dev.trunkline.v1.CompleteUnaryResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionServiceGrpc;
import dev.trunkline.v1.CompletionSpec;
import dev.trunkline.v1.Conversation;
import dev.trunkline.v1.ConversationServiceGrpc;
import dev.trunkline.v1.CreateConversationRequest;
import dev.trunkline.v1.CreateConversationResponse;
import dev.trunkline.v1.CreateJobRequest;
import dev.trunkline.v1.CreateJobResponse;
import dev.trunkline.v1.DeleteConversationRequest;
import dev.trunkline.v1.GetConversationRequest;
import dev.trunkline.v1.GetConversationResponse;
import dev.trunkline.v1.GetJobRequest;
import dev.trunkline.v1.GetJobResponse;
import dev.trunkline.v1.GetModelRequest;
import dev.trunkline.v1.GetModelResponse;
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
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;
import java.util.function.Function;

/**
 * A connection to one gateway, for all threads, to be closed. Its calls do not block: one answer is
 * a future, many are a publisher.
 *
 * <p>Futures and publishers end with {@link TrunklineException} where a call fails; a call that
 * fails before its answer begins is tried again as the gateway's published service config says.
 * Cancelling a future, or ending it in any other way, cancels its call; so does cancelling a
 * subscription. Stages that depend on a future do not cancel it.
 */
public final class AsyncTrunklineClient implements AutoCloseable {
  private final Connection connection;
  private final CallSettings settings;
  private final Channel channel;

  private AsyncTrunklineClient(Connection connection, CallSettings settings) {
    this.connection = connection;
    this.settings = settings;
    channel = connection.with(settings);
  }

  /**
   * Begins a client.
   *
   * @param target {@code host:port}, or any target of gRPC for Java
   */
  public static ClientBuilder<AsyncTrunklineClient> builder(String target) {
    return new ClientBuilder<>(
        target, connection -> new AsyncTrunklineClient(connection, CallSettings.NONE));
  }

  /**
   * The same connection, with settings for the calls that are made through what is returned, in
   * place of any given before. Closing one closes both.
   */
  public AsyncTrunklineClient with(CallSettings settings) {
    return new AsyncTrunklineClient(connection, settings);
  }

  /**
   * For stubs of the caller's own, as those of the services that have no methods here. Their calls
   * have the same credentials, headers and timeout; they fail with {@link StatusRuntimeException},
   * which {@link TrunklineException#from} reads.
   */
  public Channel channel() {
    return channel;
  }

  /** One whole answer. */
  public CompletableFuture<Completion> complete(String prompt) {
    return complete(prompt, SpecOptions.NONE);
  }

  /** One whole answer. */
  public CompletableFuture<Completion> complete(String prompt, SpecOptions options) {
    return complete(options.spec(prompt));
  }

  /** One whole answer to a conversation, its oldest message first. */
  public CompletableFuture<Completion> complete(List<Message> messages, SpecOptions options) {
    return complete(options.spec(messages));
  }

  /** One whole answer. */
  public CompletableFuture<Completion> complete(CompletionSpec spec) {
    var request =
        CompleteUnaryRequest.newBuilder()
            .setSpec(spec)
            .setIdempotencyKey(settings.idempotencyKey())
            .build();
    return call(
        CompletionServiceGrpc.getCompleteUnaryMethod(),
        request,
        CompleteUnaryResponse::getCompletion);
  }

  /** One answer as it is made, once somebody subscribes. */
  public AsyncCompletionStream stream(String prompt) {
    return stream(prompt, SpecOptions.NONE);
  }

  /** One answer as it is made, once somebody subscribes. */
  public AsyncCompletionStream stream(String prompt, SpecOptions options) {
    return stream(options.spec(prompt));
  }

  /** One answer to a conversation as it is made, once somebody subscribes. */
  public AsyncCompletionStream stream(List<Message> messages, SpecOptions options) {
    return stream(options.spec(messages));
  }

  /** One answer as it is made, once somebody subscribes. */
  public AsyncCompletionStream stream(CompletionSpec spec) {
    return stream(CompleteRequest.newBuilder().setSpec(spec));
  }

  /**
   * One answer as it is made, once somebody subscribes.
   *
   * @param streamOptions of which a heartbeat turns retries off
   */
  public AsyncCompletionStream stream(CompletionSpec spec, StreamOptions streamOptions) {
    return stream(CompleteRequest.newBuilder().setSpec(spec).setStreamOptions(streamOptions));
  }

  private AsyncCompletionStream stream(CompleteRequest.Builder begun) {
    var request = begun.setIdempotencyKey(settings.idempotencyKey()).build();
    return new AsyncCompletionStream(newCall(CompletionServiceGrpc.getCompleteMethod()), request);
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public CompletableFuture<PreviewRouteResponse> previewRoute(String prompt) {
    return previewRoute(prompt, SpecOptions.NONE);
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public CompletableFuture<PreviewRouteResponse> previewRoute(String prompt, SpecOptions options) {
    return previewRoute(options.spec(prompt));
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public CompletableFuture<PreviewRouteResponse> previewRoute(
      List<Message> messages, SpecOptions options) {
    return previewRoute(options.spec(messages));
  }

  /** Who would answer, best first, then who would not and why. No provider is asked. */
  public CompletableFuture<PreviewRouteResponse> previewRoute(CompletionSpec spec) {
    return previewRoute(PreviewRouteRequest.newBuilder().setSpec(spec).build());
  }

  /**
   * Who would answer, best first, then who would not and why. No provider is asked.
   *
   * @param request may name an earlier request, whose decision is then told as it was made
   */
  public CompletableFuture<PreviewRouteResponse> previewRoute(PreviewRouteRequest request) {
    return call(CompletionServiceGrpc.getPreviewRouteMethod(), request, Function.identity());
  }

  /** Every model, route and mode of the catalog; pages are fetched as they are needed. */
  public Flow.Publisher<Model> listModels() {
    return listModels(0);
  }

  /**
   * Every model, route and mode of the catalog; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Flow.Publisher<Model> listModels(int pageSize) {
    var request = ListModelsRequest.newBuilder().setPageSize(pageSize);
    return new PagePublisher<>(
        token ->
            call(
                CatalogServiceGrpc.getListModelsMethod(),
                request.clone().setPageToken(token).build(),
                Function.identity()),
        ListModelsResponse::getNextPageToken,
        ListModelsResponse::getModelsList);
  }

  /**
   * One entry of the catalog.
   *
   * @throws NotFoundException it names the nearest known id
   */
  public CompletableFuture<Model> getModel(String modelId) {
    var request = GetModelRequest.newBuilder().setModelId(modelId).build();
    return call(CatalogServiceGrpc.getGetModelMethod(), request, GetModelResponse::getModel);
  }

  /**
   * Asks for work that outlives this call; it is kept when this returns.
   *
   * @param kind completion, research or video
   */
  public CompletableFuture<Job> createJob(String kind, CompletionSpec spec) {
    return createJob(kind, spec, "");
  }

  /**
   * Asks for work that outlives this call; it is kept when this returns.
   *
   * @param kind completion, research or video
   * @param callbackUrl is told when the job has ended
   */
  public CompletableFuture<Job> createJob(String kind, CompletionSpec spec, String callbackUrl) {
    var request =
        CreateJobRequest.newBuilder()
            .setKind(kind)
            .setSpec(spec)
            .setIdempotencyKey(settings.idempotencyKey())
            .setCallbackUrl(callbackUrl)
            .build();
    return call(JobServiceGrpc.getCreateJobMethod(), request, CreateJobResponse::getJob);
  }

  /**
   * A job as it is now, with its result once it has ended.
   *
   * @throws NotFoundException no such job
   */
  public CompletableFuture<Job> getJob(String jobId) {
    var request = GetJobRequest.newBuilder().setJobId(jobId).build();
    return call(JobServiceGrpc.getGetJobMethod(), request, GetJobResponse::getJob);
  }

  /**
   * The caller's jobs without their results, newest first; pages are fetched as they are needed.
   */
  public Flow.Publisher<Job> listJobs() {
    return listJobs(0);
  }

  /**
   * The caller's jobs without their results, newest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Flow.Publisher<Job> listJobs(int pageSize) {
    var request = ListJobsRequest.newBuilder().setPageSize(pageSize);
    return new PagePublisher<>(
        token ->
            call(
                JobServiceGrpc.getListJobsMethod(),
                request.clone().setPageToken(token).build(),
                Function.identity()),
        ListJobsResponse::getNextPageToken,
        ListJobsResponse::getJobsList);
  }

  /**
   * Ends a job; one that has ended stays as it is.
   *
   * @throws NotFoundException no such job
   */
  public CompletableFuture<Job> cancelJob(String jobId) {
    var request = CancelJobRequest.newBuilder().setJobId(jobId).build();
    return call(JobServiceGrpc.getCancelJobMethod(), request, CancelJobResponse::getJob);
  }

  /** What has happened to a job, then what happens, until it has ended. */
  public Flow.Publisher<WatchJobResponse> watchJob(String jobId) {
    return watchJob(jobId, 0);
  }

  /**
   * What has happened to a job after that event, then what happens, until the job has ended. Each
   * subscriber makes a call. Broken off, it is called again with the number of the last event.
   */
  public Flow.Publisher<WatchJobResponse> watchJob(String jobId, long afterSequence) {
    var request =
        WatchJobRequest.newBuilder().setJobId(jobId).setAfterSequence(afterSequence).build();
    return subscriber ->
        new StreamingCall<>(newCall(JobServiceGrpc.getWatchJobMethod()), subscriber).start(request);
  }

  /** A conversation in which nothing was said yet; its id is a completion's conversation id. */
  public CompletableFuture<Conversation> createConversation() {
    return createConversation("", "");
  }

  /**
   * A conversation in which nothing was said yet; its id is a completion's conversation id.
   *
   * @param title at most 256 characters
   * @param metadataJson empty, or a JSON object of at most 16 KiB
   */
  public CompletableFuture<Conversation> createConversation(String title, String metadataJson) {
    var request =
        CreateConversationRequest.newBuilder()
            .setTitle(title)
            .setMetadataJson(metadataJson)
            .setIdempotencyKey(settings.idempotencyKey())
            .build();
    return call(
        ConversationServiceGrpc.getCreateConversationMethod(),
        request,
        CreateConversationResponse::getConversation);
  }

  /**
   * What is known of a conversation, without what was said in it.
   *
   * @throws NotFoundException it is not there, or not the key's organisation's
   */
  public CompletableFuture<Conversation> getConversation(String conversationId) {
    var request = GetConversationRequest.newBuilder().setConversationId(conversationId).build();
    return call(
        ConversationServiceGrpc.getGetConversationMethod(),
        request,
        GetConversationResponse::getConversation);
  }

  /** Those of the key's organisation, newest first; pages are fetched as they are needed. */
  public Flow.Publisher<Conversation> listConversations() {
    return listConversations(0);
  }

  /**
   * Those of the key's organisation, newest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Flow.Publisher<Conversation> listConversations(int pageSize) {
    var request = ListConversationsRequest.newBuilder().setPageSize(pageSize);
    return new PagePublisher<>(
        token ->
            call(
                ConversationServiceGrpc.getListConversationsMethod(),
                request.clone().setPageToken(token).build(),
                Function.identity()),
        ListConversationsResponse::getNextPageToken,
        ListConversationsResponse::getConversationsList);
  }

  /** What was said, oldest first; pages are fetched as they are needed. */
  public Flow.Publisher<StoredMessage> listMessages(String conversationId) {
    return listMessages(conversationId, 0);
  }

  /**
   * What was said, oldest first; pages are fetched as they are needed.
   *
   * @param pageSize 0: the gateway's default
   */
  public Flow.Publisher<StoredMessage> listMessages(String conversationId, int pageSize) {
    var request =
        ListMessagesRequest.newBuilder().setConversationId(conversationId).setPageSize(pageSize);
    return new PagePublisher<>(
        token ->
            call(
                ConversationServiceGrpc.getListMessagesMethod(),
                request.clone().setPageToken(token).build(),
                Function.identity()),
        ListMessagesResponse::getNextPageToken,
        ListMessagesResponse::getMessagesList);
  }

  /**
   * Deletes a conversation and all that was said in it.
   *
   * @throws NotFoundException it is not there, or not the key's organisation's
   */
  public CompletableFuture<Void> deleteConversation(String conversationId) {
    var request = DeleteConversationRequest.newBuilder().setConversationId(conversationId).build();
    return call(ConversationServiceGrpc.getDeleteConversationMethod(), request, deleted -> null);
  }

  /** Closes the connection and cancels the calls that still run. */
  @Override
  public void close() {
    connection.close();
  }

  private <Q, R> ClientCall<Q, R> newCall(MethodDescriptor<Q, R> method) {
    return channel.newCall(method, CallOptions.DEFAULT);
  }

  private <Q, R, T> CompletableFuture<T> call(
      MethodDescriptor<Q, R> method, Q request, Function<R, T> result) {
    ClientCall<Q, R> call = newCall(method);
    var answer = new Answer<T>(call);
    ClientCalls.asyncUnaryCall(
        call,
        request,
        new StreamObserver<>() {
          private T value;

          @Override
          public void onNext(R response) {
            value = result.apply(response);
          }

          @Override
          public void onError(Throwable error) {
            answer.fail(TrunklineException.from((StatusRuntimeException) error));
          }

          @Override
          public void onCompleted() {
            answer.tell(value);
          }
        });
    return answer;
  }
}
