package main

import (
	"context"
	"io"
	"iter"
	"runtime"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

const (
	mostTurns   = 8
	benchPrompt = "Hi"
)

func (o *line) run(told *result) error {
	call := &o.Call
	if call.Method == "fold" {
		events := make([]*v1.CompleteResponse, len(call.Events))
		for i, event := range call.Events {
			events[i] = decoded[v1.CompleteResponse](event)
		}
		told.take(trunkline.Fold(slices.Values(events)))
		return nil
	}
	if call.Method == "bench" && call.API == "stub" {
		return o.benchStub(told)
	}
	client, err := o.Client.newClient()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := call.context()
	defer cancel()
	switch call.Method {
	case "complete":
		completion, err := client.Complete(ctx, call.input(), call.completionOptions()...)
		told.take(completion)
		return err
	case "stream":
		return call.stream(ctx, client, told)
	case "text_deltas":
		return call.textDeltas(ctx, client, told)
	case "converse":
		return call.converse(ctx, client, told)
	case "abandon":
		return call.abandon(ctx, client, told)
	case "bench":
		return call.bench(told, func() (int, error) { return readAll(ctx, client) })
	}
	return call.other(ctx, client, told)
}

func (c *call) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	if c.TimeoutS != nil {
		ctx, cancel = context.WithTimeout(context.Background(), seconds(*c.TimeoutS))
	}
	if c.CancelAfterS > 0 {
		time.AfterFunc(seconds(c.CancelAfterS), cancel)
	}
	return ctx, cancel
}

func (c *call) stream(ctx context.Context, client *trunkline.Client, told *result) error {
	stream, err := client.Stream(ctx, c.input(), c.completionOptions()...)
	if err != nil {
		return err
	}
	defer stream.Close()
	for event, err := range stream.Events() {
		if err != nil {
			told.take(stream.Snapshot())
			return err
		}
		told.Events = append(told.Events, kindOf(event))
		time.Sleep(time.Duration(c.ReadDelayMS) * time.Millisecond)
		if len(told.Events) == c.LeaveAfter {
			told.take(stream.Snapshot())
			return nil
		}
	}
	if c.Then == "snapshot" {
		told.take(stream.Snapshot())
		return nil
	}
	completion, err := stream.Completion()
	told.take(completion)
	return err
}

func (c *call) textDeltas(ctx context.Context, client *trunkline.Client, told *result) error {
	stream, err := client.Stream(ctx, c.input(), c.completionOptions()...)
	if err != nil {
		return err
	}
	defer stream.Close()
	for text, err := range stream.TextDeltas() {
		if err != nil {
			return err
		}
		told.Texts = append(told.Texts, text)
	}
	return nil
}

func (c *call) converse(ctx context.Context, client *trunkline.Client, told *result) error {
	messages := trunkline.Messages{trunkline.User(*c.Prompt)}
	for range mostTurns {
		completion, err := client.Complete(ctx, messages, c.completionOptions()...)
		told.take(completion)
		calls := trunkline.ToolCalls(completion)
		if err != nil || len(calls) == 0 {
			return err
		}
		messages = append(messages, trunkline.Turns(completion)...)
		for _, call := range calls {
			answer := trunkline.ToolResult[string]
			if c.Results[call.GetName()].IsError {
				answer = trunkline.ToolError[string]
			}
			messages = append(messages, answer(call, c.Results[call.GetName()].Text))
		}
	}
	return nil
}

func (c *call) abandon(ctx context.Context, client *trunkline.Client, told *result) error {
	for number := range c.Count {
		if number == min(100, c.Count-1) {
			told.measure()
		}
		stream, err := client.Stream(ctx, c.input(), c.completionOptions()...)
		if err != nil {
			return err
		}
		read := 0
		for _, err := range stream.Events() {
			if err != nil {
				return err
			}
			if read++; read == c.LeaveAfter {
				break
			}
		}
	}
	told.measure()
	return nil
}

// measure waits for what has been cancelled to be cleared away, which gRPC does beside the caller.
func (r *result) measure() {
	time.Sleep(200 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.LiveBytes = append(r.LiveBytes, memory.HeapAlloc)
	r.Threads = append(r.Threads, runtime.NumGoroutine())
}

// bench reads streams one after the other until the time is over.
func (c *call) bench(told *result, read func() (int, error)) error {
	begun, beganCPU := time.Now(), cpuTime()
	for time.Since(begun) < seconds(c.Seconds) {
		count, err := read()
		if err != nil {
			return err
		}
		told.Messages += count
	}
	told.ElapsedS = time.Since(begun).Seconds()
	told.CPUS = (cpuTime() - beganCPU).Seconds()
	return nil
}

func readAll(ctx context.Context, client *trunkline.Client) (int, error) {
	stream, err := client.Stream(ctx, trunkline.Prompt(benchPrompt))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, err := range stream.Events() {
		if err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}

// benchStub uses nothing of the client.
func (o *line) benchStub(told *result) error {
	conn, err := grpc.NewClient(o.Client.Target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stub := v1.NewCompletionServiceClient(conn)
	request := &v1.CompleteRequest{Spec: &v1.CompletionSpec{
		Messages: []*v1.Message{trunkline.User(benchPrompt)},
	}}
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.New(o.Client.Metadata))
	return o.Call.bench(told, func() (count int, err error) {
		stream, err := stub.Complete(ctx, request)
		for err == nil {
			if _, err = stream.Recv(); err == nil {
				count++
			}
		}
		if err == io.EOF {
			return count, nil
		}
		return 0, err
	})
}

func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// other makes a call that gives one message, or many.
func (c *call) other(ctx context.Context, client *trunkline.Client, told *result) error {
	options := c.callOptions()
	switch c.Method {
	case "preview_route":
		if c.RequestID != nil {
			return told.item(client.EarlierRoute(ctx, *c.RequestID))
		}
		return told.item(client.PreviewRoute(ctx, c.input(), c.completionOptions()...))
	case "list_models":
		return items(told, client.ListModels(ctx, options...))
	case "get_model":
		return told.item(client.GetModel(ctx, c.ModelID, options...))
	case "create_job":
		request := &v1.CreateJobRequest{Kind: c.Kind, IdempotencyKey: c.IdempotencyKey, CallbackUrl: c.CallbackURL}
		if c.Spec != nil {
			request.Spec = decoded[v1.CompletionSpec](c.Spec)
		} else if c.Prompt != nil {
			request.Spec = &v1.CompletionSpec{Messages: []*v1.Message{trunkline.User(*c.Prompt)}}
		}
		return told.item(client.CreateJob(ctx, request, options...))
	case "get_job":
		return told.item(client.GetJob(ctx, c.JobID, options...))
	case "list_jobs":
		return items(told, client.ListJobs(ctx, options...))
	case "cancel_job":
		return told.item(client.CancelJob(ctx, c.JobID, options...))
	case "watch_job":
		return items(told, client.WatchJob(ctx, c.JobID, c.AfterSequence, options...))
	case "create_conversation":
		request := &v1.CreateConversationRequest{Title: c.Title, MetadataJson: c.MetadataJSON, IdempotencyKey: c.IdempotencyKey}
		return told.item(client.CreateConversation(ctx, request, options...))
	case "get_conversation":
		return told.item(client.GetConversation(ctx, c.ConversationID, options...))
	case "list_conversations":
		return items(told, client.ListConversations(ctx, options...))
	case "list_messages":
		return items(told, client.ListMessages(ctx, c.ConversationID, options...))
	case "delete_conversation":
		return client.DeleteConversation(ctx, c.ConversationID, options...)
	}
	panic("no method " + c.Method)
}

func items[M proto.Message](told *result, all iter.Seq2[M, error]) error {
	for message, err := range all {
		if err := told.item(message, err); err != nil {
			return err
		}
	}
	return nil
}
