package trunkline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// failed is the Error of a status with details, as it arrives.
func failed(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) *Error {
	t.Helper()
	full, err := status.New(code, "said so").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := proto.Marshal(full.Proto())
	if err != nil {
		t.Fatal(err)
	}
	trailer := metadata.Pairs("grpc-status-details-bin", string(bytes))
	return translated(status.Error(code, "no"), nil, trailer).(*Error)
}

func TestEachCodeHasItsFamily(t *testing.T) {
	for code, family := range map[codes.Code]error{
		codes.InvalidArgument:    ErrInvalidRequest,
		codes.Unauthenticated:    ErrUnauthenticated,
		codes.PermissionDenied:   ErrPermissionDenied,
		codes.NotFound:           ErrNotFound,
		codes.FailedPrecondition: ErrFailedPrecondition,
		codes.AlreadyExists:      ErrConflict,
		codes.ResourceExhausted:  ErrResourceExhausted,
		codes.Aborted:            ErrAborted,
		codes.Unavailable:        ErrUnavailable,
		codes.DeadlineExceeded:   ErrDeadlineExceeded,
		codes.Canceled:           ErrCancelled,
		codes.Unimplemented:      ErrUnimplemented,
		codes.Internal:           ErrInternal,
		codes.Unknown:            ErrInternal,
		codes.DataLoss:           ErrInternal,
		codes.OutOfRange:         ErrInternal,
		codes.Code(99):           ErrInternal,
	} {
		bare := translated(status.Error(code, "no"), nil, nil)
		newer := failed(t, code, &errdetails.ErrorInfo{Reason: "TOO_NEW", Domain: "trunkline"})

		if !errors.Is(bare, family) || !errors.Is(newer, family) || newer.Reason != "TOO_NEW" {
			t.Errorf("%v: %v, %v", code, bare, newer)
		}
	}
}

func TestWithoutAReasonTheCodeIsOne(t *testing.T) {
	for code, reason := range map[codes.Code]string{
		codes.Unavailable: "UNAVAILABLE", codes.Canceled: "CANCELLED", codes.NotFound: "NOT_FOUND",
		codes.Code(99): "UNKNOWN",
	} {
		err := translated(status.Error(code, "no"), nil, nil)

		if err.Error() != reason+": no" {
			t.Error(err)
		}
	}
}

func TestAReasonOfOursDecidesTheFamilyWhateverTheCode(t *testing.T) {
	for reason, kind := range kindOfReason {
		err := failed(t, codes.Unknown, &errdetails.ErrorInfo{Reason: reason, Domain: "trunkline"})

		if !errors.Is(err, kind.family) || err.Code != codes.Unknown {
			t.Error(err)
		}
	}
	foreign := failed(t, codes.FailedPrecondition, &errdetails.ErrorInfo{Reason: "RATE_LIMITED", Domain: "proxy.example"})
	if !errors.Is(foreign, ErrFailedPrecondition) || foreign.Retryable {
		t.Error(foreign)
	}
}

func TestWhatMayBeSentAgain(t *testing.T) {
	for reason, want := range map[string]bool{
		ReasonRateLimited: true, ReasonConcurrencyExhausted: true, ReasonRequestInProgress: true,
		ReasonOverloaded: true, ReasonAllProvidersFailed: false, ReasonStreamInterrupted: false,
		ReasonInsufficientCredits: false,
	} {
		if err := failed(t, codes.Unknown, &errdetails.ErrorInfo{Reason: reason, Domain: "trunkline"}); err.Retryable != want {
			t.Error(err)
		}
		// What the gateway says counts more.
		told := &errdetails.ErrorInfo{
			Reason: reason, Domain: "trunkline", Metadata: map[string]string{"retryable": fmt.Sprint(!want)},
		}
		if err := failed(t, codes.Unknown, told); err.Retryable == want {
			t.Error(err)
		}
	}
	if err := translated(status.Error(codes.Unavailable, "no"), nil, nil).(*Error); !err.Retryable {
		t.Error(err)
	}
}

func TestAnErrorCarriesWhatItsDetailsSay(t *testing.T) {
	err := failed(t, codes.InvalidArgument,
		&errdetails.ErrorInfo{
			Reason: "INVALID_REQUEST", Domain: "trunkline", Metadata: map[string]string{"provider": "p", "extra": "more"},
		},
		&errdetails.RequestInfo{RequestId: "req_12345"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "spec.messages[0].role", Description: "unknown", Reason: "ENUM"},
		}},
	)

	want := &Error{
		Family:          ErrInvalidRequest,
		Reason:          ReasonInvalidRequest,
		Code:            codes.InvalidArgument,
		Message:         "said so",
		RequestID:       "req_12345",
		RetryAfter:      new(1500 * time.Millisecond),
		Provider:        "p",
		FieldViolations: []FieldViolation{{"spec.messages[0].role", "unknown", "ENUM"}},
		Metadata:        map[string]string{"provider": "p", "extra": "more"},
		cause:           err.cause,
	}
	if !reflect.DeepEqual(err, want) {
		t.Errorf("%+v instead of %+v", err, want)
	}
	if err.Error() != "INVALID_REQUEST: said so (request req_12345)" {
		t.Error(err)
	}
}

func TestDamagedDetailsLeaveCodeAndMessage(t *testing.T) {
	for _, details := range []string{"\xff\xff", "\x1a\x04\x12\x02\xff\xff"} {
		trailer := metadata.Pairs("grpc-status-details-bin", details, "x-request-id", "req_12345")

		err := translated(status.Error(codes.NotFound, "no such model"), nil, trailer).(*Error)

		if !errors.Is(err, ErrNotFound) || err.Message != "no such model" || err.RequestID != "req_12345" {
			t.Errorf("%q: %v", details, err)
		}
	}
}

func TestARequestIDMayComeAheadOfTheAnswer(t *testing.T) {
	err := translated(status.Error(codes.Internal, "no"), metadata.Pairs("x-request-id", "req_12345"), nil)

	if err.Error() != "INTERNAL: no (request req_12345)" {
		t.Error(err)
	}
}

func TestTheLastOfSeveralTriesSpeaksForItself(t *testing.T) {
	last := status.Error(codes.Unavailable, "no")

	err := translated(fmt.Errorf("max retries exhausted: %w", last), nil, nil)

	if err.Error() != "UNAVAILABLE: no" || !errors.Is(err, last) {
		t.Error(err)
	}
}

func TestDeadlinesAndCancellationAreAlsoThoseOfContexts(t *testing.T) {
	for _, test := range []struct{ raw, family, ours, other error }{
		{status.Error(codes.DeadlineExceeded, "no"), ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled},
		{status.Error(codes.Canceled, "no"), ErrCancelled, context.Canceled, context.DeadlineExceeded},
		{context.Canceled, ErrCancelled, context.Canceled, context.DeadlineExceeded},
	} {
		err := translated(test.raw, nil, nil)

		if !errors.Is(err, test.family) || !errors.Is(err, test.ours) || errors.Is(err, test.other) {
			t.Error(err)
		}
	}
	if errors.Is(translated(io.ErrUnexpectedEOF, nil, nil), context.Canceled) {
		t.Error("no cancellation")
	}
}
