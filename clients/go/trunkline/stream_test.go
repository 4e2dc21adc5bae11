package trunkline

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// gateway says the same events to everybody, then nothing more until the caller has gone. Whole answers it has later.
type gateway struct {
	v1.UnimplementedCompletionServiceServer
	events []*v1.CompleteResponse
	isDone bool
	left   chan struct{}
}

func (g *gateway) Complete(_ *v1.CompleteRequest, stream grpc.ServerStreamingServer[v1.CompleteResponse]) error {
	for _, event := range g.events {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	if !g.isDone {
		<-stream.Context().Done()
		close(g.left)
	}
	return nil
}

func (g *gateway) CompleteUnary(ctx context.Context, _ *v1.CompleteUnaryRequest) (*v1.CompleteUnaryResponse, error) {
	grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "20000"))
	return nil, status.Error(codes.Unavailable, "later")
}

func (g *gateway) mustBeLeft(t *testing.T) {
	t.Helper()
	select {
	case <-g.left:
	case <-time.After(10 * time.Second):
		t.Fatal("the call was not cancelled")
	}
}

func serve(t *testing.T, isDone bool, events ...string) (*gateway, *Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving := &gateway{isDone: isDone, left: make(chan struct{})}
	for _, event := range events {
		serving.events = append(serving.events, from[v1.CompleteResponse](t, event))
	}
	server := grpc.NewServer()
	v1.RegisterCompletionServiceServer(server, serving)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return serving, closing(t)(NewClient("ipv4:" + listener.Addr().String()))
}

func open(t *testing.T, client *Client) *Stream {
	t.Helper()
	stream, err := client.Stream(t.Context(), Prompt("Hi"))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

const hello = `{"textDelta": {"text": "Hé"}}`

func TestLeavingALoopCancelsTheCall(t *testing.T) {
	for name, leave := range map[string]func(*Stream){
		"events": func(stream *Stream) {
			for range stream.Events() {
				break
			}
		},
		"text": func(stream *Stream) {
			for range stream.TextDeltas() {
				break
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			gateway, client := serve(t, false, hello)
			stream := open(t, client)

			leave(stream)

			gateway.mustBeLeft(t)
			if Text(stream.Snapshot()) != "Hé" {
				t.Error(stream.Snapshot())
			}
			if _, err := stream.Completion(); !errors.Is(err, ErrCancelled) {
				t.Error(err)
			}
		})
	}
}

func TestAStreamThatIsForgottenIsCancelled(t *testing.T) {
	gateway, client := serve(t, false, hello)
	open(t, client)

	for range 2 {
		runtime.GC()
	}

	gateway.mustBeLeft(t)
}

func TestAStreamMayBeClosedBesideItsReader(t *testing.T) {
	gateway, client := serve(t, false, hello)
	stream := open(t, client)
	for _, err := range stream.Events() {
		if err == nil {
			go stream.Close()
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	gateway.mustBeLeft(t)
}

func TestClosingTheClientEndsWhatRuns(t *testing.T) {
	_, client := serve(t, false, hello)
	stream := open(t, client)
	for _, err := range stream.Events() {
		if err == nil {
			go client.Close()
		} else if !errors.Is(err, ErrCancelled) {
			t.Error(err)
		}
	}
}

func TestClosingTheClientEndsWhatWaitsForAnotherTry(t *testing.T) {
	_, client := serve(t, true)
	began := time.Now()
	time.AfterFunc(100*time.Millisecond, func() { client.Close() })

	_, err := client.Complete(t.Context(), Prompt("Hi"))

	if !errors.Is(err, ErrCancelled) || time.Since(began) > 5*time.Second {
		t.Error(err, time.Since(began))
	}
}

func TestARequestThatCannotBeEncodedIsTheCallersMistake(t *testing.T) {
	_, client := serve(t, true)
	prompt := Prompt("no UTF-8: \xff")

	_, ofUnary := client.Complete(t.Context(), prompt)
	_, ofStream := client.Stream(t.Context(), prompt)

	for _, err := range []error{ofUnary, ofStream} {
		if !errors.Is(err, ErrArgument) {
			t.Error(err)
		}
	}
}

func TestAnAnswerIsNeverCutOffSilently(t *testing.T) {
	_, client := serve(t, true, hello)
	stream := open(t, client)
	defer stream.Close()

	for range 2 {
		completion, err := stream.Completion()

		var failed *Error
		if !errors.As(err, &failed) || failed.Reason != ReasonStreamInterrupted || failed.Retryable {
			t.Error(completion, err)
		}
	}
}

func TestTextThatWasHandedOutIsNeverReplacedSilently(t *testing.T) {
	_, client := serve(t, true, hello, `{"streamReset": {}}`, hello, `{"completed": {}}`)
	stream := open(t, client)

	var texts []string
	var last error
	for text, err := range stream.TextDeltas() {
		if last = err; err == nil {
			texts = append(texts, text)
		}
	}

	if !slices.Equal(texts, []string{"Hé"}) || !errors.Is(last, ErrAborted) {
		t.Error(texts, last)
	}
}

func TestAResetIsFoldedAway(t *testing.T) {
	_, client := serve(t, true, hello, `{"streamReset": {}}`, hello, `{"completed": {}}`)

	completion, err := open(t, client).Completion()

	if err != nil || Text(completion) != "Hé" {
		t.Error(completion, err)
	}
}
