package trunkline

import (
	"context"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// A Client is a connection to one gateway, for all goroutines.
//
// Its calls fail with an *Error, or with ErrArgument for what cannot be sent. A call that fails with UNAVAILABLE before
// its answer begins is tried again as the gateway's published service config says; nothing here adds to that.
//
// The context of a call bounds and cancels it, retries included. Where it has no deadline, the default of the client
// holds. The service config ends completions after 600 s and catalog calls after 10 s in any case.
type Client struct {
	channel       *channel
	completions   v1.CompletionServiceClient
	catalog       v1.CatalogServiceClient
	jobs          v1.JobServiceClient
	conversations v1.ConversationServiceClient
}

// NewClient makes a client of the gateway at a target: "host:port", or any other target of gRPC. It connects when it is
// first used.
func NewClient(target string, options ...ClientOption) (*Client, error) {
	settings := settings{defaultTimeout: defaultTimeout, headers: metadata.MD{}}
	for _, option := range options {
		if err := option.applyToClient(&settings); err != nil {
			return nil, err
		}
	}
	channel, err := settings.dial(target)
	if err != nil {
		return nil, err
	}
	return &Client{
		channel:       channel,
		completions:   v1.NewCompletionServiceClient(channel),
		catalog:       v1.NewCatalogServiceClient(channel),
		jobs:          v1.NewJobServiceClient(channel),
		conversations: v1.NewConversationServiceClient(channel),
	}, nil
}

// Channel is what any generated stub can be made with, for the services that the client has no methods of:
//
//	accounts := trunklinev1.NewAccountServiceClient(client.Channel())
//
// Its calls have the key, the headers and the default deadline of the client, and fail as the client's own do.
func (c *Client) Channel() grpc.ClientConnInterface { return c.channel }

// Close closes the connection and cancels the calls that still run.
func (c *Client) Close() error { return c.channel.Close() }

// Complete asks for one whole answer.
func (c *Client) Complete(ctx context.Context, prompt Input, options ...CompletionOption) (*v1.Completion, error) {
	request, err := newRequest(prompt, options)
	if err != nil {
		return nil, err
	}
	if request.streamOptions != nil {
		return nil, refused("stream options are for streams")
	}
	response, err := c.completions.CompleteUnary(request.context(ctx), &v1.CompleteUnaryRequest{
		Spec: request.spec, IdempotencyKey: request.idempotencyKey,
	})
	return response.GetCompletion(), err
}

// Stream asks for one answer as it is made. The stream is to be closed.
func (c *Client) Stream(ctx context.Context, prompt Input, options ...CompletionOption) (*Stream, error) {
	request, err := newRequest(prompt, options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(request.context(ctx))
	call, err := c.completions.Complete(ctx, &v1.CompleteRequest{
		Spec: request.spec, IdempotencyKey: request.idempotencyKey, StreamOptions: request.streamOptions,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return newStream(call, cancel), nil
}

// PreviewRoute tells who would answer, best first, then who would not and why. No provider is asked.
func (c *Client) PreviewRoute(ctx context.Context, prompt Input, options ...CompletionOption) (*v1.PreviewRouteResponse, error) {
	request, err := newRequest(prompt, options)
	if err != nil {
		return nil, err
	}
	if request.streamOptions != nil || request.idempotencyKey != "" {
		return nil, refused("a preview streams nothing and has no idempotency key")
	}
	return c.completions.PreviewRoute(request.context(ctx), &v1.PreviewRouteRequest{Spec: request.spec})
}

// EarlierRoute tells the decision of an earlier request, as it was made.
func (c *Client) EarlierRoute(ctx context.Context, requestID string, options ...CallOption) (*v1.PreviewRouteResponse, error) {
	return one(ctx, c.completions.PreviewRoute, &v1.PreviewRouteRequest{RequestId: requestID}, options)
}

// ListModels lists every model, route and mode of the catalog; pages are fetched as they are needed.
func (c *Client) ListModels(ctx context.Context, options ...CallOption) iter.Seq2[*v1.Model, error] {
	return list(ctx, options, func(ctx context.Context, size int32, token string) ([]*v1.Model, string, error) {
		page, err := c.catalog.ListModels(ctx, &v1.ListModelsRequest{PageSize: size, PageToken: token})
		return page.GetModels(), page.GetNextPageToken(), err
	})
}

// GetModel is one entry of the catalog. ReasonModelNotFound names the nearest known id.
func (c *Client) GetModel(ctx context.Context, modelID string, options ...CallOption) (*v1.Model, error) {
	response, err := one(ctx, c.catalog.GetModel, &v1.GetModelRequest{ModelId: modelID}, options)
	return response.GetModel(), err
}

// CreateJob asks for work that outlives this call; it is kept when this returns. Its kind is completion, research or
// video, and with an idempotency key the same request makes the same job.
func (c *Client) CreateJob(ctx context.Context, request *v1.CreateJobRequest, options ...CallOption) (*v1.Job, error) {
	response, err := one(ctx, c.jobs.CreateJob, request, options)
	return response.GetJob(), err
}

// GetJob is a job as it is now, with its result once it has ended.
func (c *Client) GetJob(ctx context.Context, jobID string, options ...CallOption) (*v1.Job, error) {
	response, err := one(ctx, c.jobs.GetJob, &v1.GetJobRequest{JobId: jobID}, options)
	return response.GetJob(), err
}

// ListJobs lists the caller's jobs without their results, newest first; pages are fetched as they are needed.
func (c *Client) ListJobs(ctx context.Context, options ...CallOption) iter.Seq2[*v1.Job, error] {
	return list(ctx, options, func(ctx context.Context, size int32, token string) ([]*v1.Job, string, error) {
		page, err := c.jobs.ListJobs(ctx, &v1.ListJobsRequest{PageSize: size, PageToken: token})
		return page.GetJobs(), page.GetNextPageToken(), err
	})
}

// CancelJob ends a job; one that has ended stays as it is.
func (c *Client) CancelJob(ctx context.Context, jobID string, options ...CallOption) (*v1.Job, error) {
	response, err := one(ctx, c.jobs.CancelJob, &v1.CancelJobRequest{JobId: jobID}, options)
	return response.GetJob(), err
}

// WatchJob tells what has happened after the event of this sequence, then what happens, until the job has ended. Broken
// off, it is called again with the sequence of the last event. Leaving the loop cancels the call.
func (c *Client) WatchJob(ctx context.Context, jobID string, afterSequence int64, options ...CallOption) iter.Seq2[*v1.WatchJobResponse, error] {
	return func(yield func(*v1.WatchJobResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		call, err := newCall(options)
		if err != nil {
			yield(nil, err)
			return
		}
		request := &v1.WatchJobRequest{JobId: jobID, AfterSequence: afterSequence}
		events, err := c.jobs.WatchJob(call.context(ctx), request)
		for {
			var event *v1.WatchJobResponse
			if err == nil {
				event, err = events.Recv()
			}
			if err == io.EOF || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// CreateConversation makes a conversation in which nothing was said yet; its id is for WithConversationID. With the same
// idempotency key one is made, for a day.
func (c *Client) CreateConversation(ctx context.Context, request *v1.CreateConversationRequest, options ...CallOption) (*v1.Conversation, error) {
	response, err := one(ctx, c.conversations.CreateConversation, request, options)
	return response.GetConversation(), err
}

// GetConversation is what is known of a conversation, without what was said in it.
func (c *Client) GetConversation(ctx context.Context, conversationID string, options ...CallOption) (*v1.Conversation, error) {
	request := &v1.GetConversationRequest{ConversationId: conversationID}
	response, err := one(ctx, c.conversations.GetConversation, request, options)
	return response.GetConversation(), err
}

// ListConversations lists those of the key's organisation, newest first; pages are fetched as they are needed.
func (c *Client) ListConversations(ctx context.Context, options ...CallOption) iter.Seq2[*v1.Conversation, error] {
	return list(ctx, options, func(ctx context.Context, size int32, token string) ([]*v1.Conversation, string, error) {
		page, err := c.conversations.ListConversations(ctx, &v1.ListConversationsRequest{PageSize: size, PageToken: token})
		return page.GetConversations(), page.GetNextPageToken(), err
	})
}

// ListMessages lists what was said, oldest first; pages are fetched as they are needed.
func (c *Client) ListMessages(ctx context.Context, conversationID string, options ...CallOption) iter.Seq2[*v1.StoredMessage, error] {
	return list(ctx, options, func(ctx context.Context, size int32, token string) ([]*v1.StoredMessage, string, error) {
		request := &v1.ListMessagesRequest{ConversationId: conversationID, PageSize: size, PageToken: token}
		page, err := c.conversations.ListMessages(ctx, request)
		return page.GetMessages(), page.GetNextPageToken(), err
	})
}

// DeleteConversation deletes a conversation and all that was said in it.
func (c *Client) DeleteConversation(ctx context.Context, conversationID string, options ...CallOption) error {
	request := &v1.DeleteConversationRequest{ConversationId: conversationID}
	_, err := one(ctx, c.conversations.DeleteConversation, request, options)
	return err
}

// one makes a unary call with options.
func one[Request, Response any](
	ctx context.Context,
	method func(context.Context, *Request, ...grpc.CallOption) (*Response, error),
	request *Request,
	options []CallOption,
) (*Response, error) {
	call, err := newCall(options)
	if err != nil {
		return nil, err
	}
	return method(call.context(ctx), request)
}

// list goes through the items of all pages, each fetched when it is needed. An error is the last that comes.
func list[Item any](
	ctx context.Context,
	options []CallOption,
	fetch func(ctx context.Context, size int32, token string) (items []Item, nextToken string, err error),
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		var none Item
		call, err := newCall(options)
		if err != nil {
			yield(none, err)
			return
		}
		ctx := call.context(ctx)
		for token := ""; ; {
			var items []Item
			items, token, err = fetch(ctx, call.pageSize, token)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if token == "" {
				return
			}
		}
	}
}

func newCall(options []CallOption) (*call, error) {
	made := &call{headers: metadata.MD{}}
	for _, option := range options {
		if err := option.applyToCall(made); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func newRequest(prompt Input, options []CompletionOption) (*request, error) {
	if prompt == nil {
		return nil, refused("give a prompt, messages or a spec")
	}
	made := prompt.newRequest()
	made.headers = metadata.MD{}
	for _, option := range options {
		if err := option.applyToCompletion(made); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// context adds the headers of the call to those that its context may have.
func (c *call) context(ctx context.Context) context.Context {
	if len(c.headers) == 0 {
		return ctx
	}
	own, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.Join(own, c.headers))
}
