package trunkline

import (
	"context"
	"io"
	"iter"
	"runtime"

	"google.golang.org/grpc"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// A Stream is one answer as it is made: typed events, the text alone, or the whole of it at the end. It has one reader;
// Close may be called from anywhere. Made by Client.Stream.
//
// A stream that is left early is cancelled, so that nobody pays for tokens that nobody reads: leaving a range loop over
// it does that, and so does Close. One that is forgotten without either is cancelled when it is collected.
//
// An answer is never cut off silently: a stream that ends in good order but without its last event fails with
// ReasonStreamInterrupted.
type Stream struct {
	call   grpc.ServerStreamingClient[v1.CompleteResponse]
	cancel context.CancelFunc
	folder CompletionFolder
	err    error // Why there are no more events, io.EOF at a whole answer's end.
}

func newStream(call grpc.ServerStreamingClient[v1.CompleteResponse], cancel context.CancelFunc) *Stream {
	stream := &Stream{call: call, cancel: cancel}
	runtime.AddCleanup(stream, func(cancel context.CancelFunc) { cancel() }, cancel)
	return stream
}

// Events are what comes, in order; callers skip an event that they do not know. An error is the last that comes, after
// the events before it. Leaving the loop closes the stream.
func (s *Stream) Events() iter.Seq2[*v1.CompleteResponse, error] {
	return func(yield func(*v1.CompleteResponse, error) bool) {
		defer s.Close()
		for {
			event, err := s.next()
			if err == io.EOF {
				return
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// TextDeltas are the text of the first choice as it comes; none of the pieces is empty. Leaving the loop closes the
// stream.
//
// They fail with ReasonStreamInterrupted where a reset takes back text that was handed out, which happens only under
// RECOVERY_RESTART. Who asks for that iterates the events.
func (s *Stream) TextDeltas() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		handedOut := make(map[int32]bool) // By hop.
		for event, err := range s.Events() {
			if err != nil {
				yield("", err)
				return
			}
			switch event := event.GetEvent().(type) {
			case *v1.CompleteResponse_TextDelta:
				delta := event.TextDelta
				if delta.GetChoiceIndex() != 0 || delta.GetText() == "" {
					continue
				}
				handedOut[s.folder.Hop()] = true
				if !yield(delta.GetText(), nil) {
					return
				}
			case *v1.CompleteResponse_StreamReset:
				if handedOut[event.StreamReset.GetHop()] {
					s.err = interrupted("text that was handed out was taken back by a reset")
					yield("", s.err)
					return
				}
			}
		}
	}
}

// Completion reads what is left of the stream, and returns the whole answer, messages included.
func (s *Stream) Completion() (*v1.Completion, error) {
	for _, err := range s.Events() {
		if err != nil {
			return nil, err
		}
	}
	return s.Snapshot(), nil
}

// Snapshot is the answer as far as it was read; also after an error.
func (s *Stream) Snapshot() *v1.Completion { return s.folder.Completion() }

// Close cancels the call unless it has ended. It may be called more than once.
func (s *Stream) Close() { s.cancel() }

func (s *Stream) next() (*v1.CompleteResponse, error) {
	if s.err != nil {
		return nil, s.err
	}
	event, err := s.call.Recv()
	if err == io.EOF && !s.folder.IsCompleted() {
		err = interrupted("the stream ended without its last event")
	}
	if err != nil {
		s.err = err
		return nil, err
	}
	s.folder.Feed(event)
	return event, nil
}
