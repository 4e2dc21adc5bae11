package main

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// The names that all languages share.
var families = map[error]string{
	trunkline.ErrInvalidRequest:     "InvalidRequest",
	trunkline.ErrUnauthenticated:    "Unauthenticated",
	trunkline.ErrPermissionDenied:   "PermissionDenied",
	trunkline.ErrNotFound:           "NotFound",
	trunkline.ErrFailedPrecondition: "FailedPrecondition",
	trunkline.ErrConflict:           "Conflict",
	trunkline.ErrResourceExhausted:  "ResourceExhausted",
	trunkline.ErrAborted:            "Aborted",
	trunkline.ErrUnavailable:        "Unavailable",
	trunkline.ErrDeadlineExceeded:   "DeadlineExceeded",
	trunkline.ErrCancelled:          "Cancelled",
	trunkline.ErrUnimplemented:      "Unimplemented",
	trunkline.ErrInternal:           "InternalError",
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	if errors.Is(err, trunkline.ErrArgument) {
		return &failure{Family: "ArgumentError", Message: err.Error()}
	}
	var failed *trunkline.Error
	if !errors.As(err, &failed) {
		panic(err)
	}
	told := &failure{
		Family:          families[failed.Family],
		Reason:          failed.Reason,
		Code:            code.Code(failed.Code).String(),
		Message:         failed.Message,
		RequestID:       failed.RequestID,
		Provider:        failed.Provider,
		Retryable:       failed.Retryable,
		FieldViolations: []fieldViolation{},
		Metadata:        map[string]string{},
	}
	if failed.RetryAfter != nil {
		told.RetryAfterS = new(failed.RetryAfter.Seconds())
	}
	for _, violation := range failed.FieldViolations {
		told.FieldViolations = append(told.FieldViolations, fieldViolation(violation))
	}
	for name, value := range failed.Metadata {
		told.Metadata[name] = value
	}
	return told
}

func (r *result) take(completion *v1.Completion) {
	if completion == nil {
		return
	}
	r.Completion = encoded(completion)
	r.Text = trunkline.Text(completion)
	r.ToolCalls = []toolCall{}
	for _, call := range trunkline.ToolCalls(completion) {
		r.ToolCalls = append(r.ToolCalls, toolCall{call.GetId(), call.GetName(), call.GetArgumentsJson()})
	}
}

func (r *result) item(message proto.Message, err error) error {
	if err == nil {
		r.Items = append(r.Items, encoded(message))
	}
	return err
}

// kindOf is the name of an event's field, empty for an event of a newer contract.
func kindOf(event *v1.CompleteResponse) string {
	message := event.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("event"))
	if field == nil {
		return ""
	}
	return string(field.Name())
}
