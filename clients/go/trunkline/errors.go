package trunkline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The families of what a call can fail with, one for each gRPC status code that means something of its own. A reason
// that is newer than this client is still of its family:
//
//	if errors.Is(err, trunkline.ErrUnavailable) { ... }
var (
	ErrInvalidRequest     = errors.New("invalid request")     // The request itself is wrong; FieldViolations says where.
	ErrUnauthenticated    = errors.New("unauthenticated")     // The gateway does not know who asks.
	ErrPermissionDenied   = errors.New("permission denied")   // The key may not do this.
	ErrNotFound           = errors.New("not found")           // What was named does not exist, or is not the caller's.
	ErrFailedPrecondition = errors.New("failed precondition") // Something else has to change before this request can be served.
	ErrConflict           = errors.New("conflict")            // Something with this name or key exists already.
	ErrResourceExhausted  = errors.New("resource exhausted")  // A limit was met; without a reason, that of gRPC on the size of messages.
	ErrAborted            = errors.New("aborted")             // The call was given up half-way.
	ErrUnavailable        = errors.New("unavailable")         // The gateway cannot be reached, or cannot answer now.
	ErrDeadlineExceeded   = errors.New("deadline exceeded")   // The deadline passed; also a context.DeadlineExceeded.
	ErrCancelled          = errors.New("cancelled")           // The call was cancelled; also a context.Canceled.
	ErrUnimplemented      = errors.New("unimplemented")       // This gateway does not offer the call, or not with this option.
	ErrInternal           = errors.New("internal error")      // A mistake of the gateway; its log has the rest under RequestID.
)

// ErrArgument is what this client refuses before anything is sent: a key that would travel in plaintext, a header that
// is none, an option that has no such value. Its text never repeats a key or the value of a header.
var ErrArgument = errors.New("invalid argument")

// Trunkline's reasons, by family. An Error has others where the gateway is newer, and the name of the status code where
// no reason was sent, as when a proxy or gRPC itself made the error.
const (
	ReasonInvalidRequest        = "INVALID_REQUEST"
	ReasonEmptyPrompt           = "EMPTY_PROMPT"            // No message has content.
	ReasonCapabilityUnsupported = "CAPABILITY_UNSUPPORTED"  // The candidates that are left cannot do what was asked.
	ReasonModeRequiresJob       = "MODE_REQUIRES_JOB"       // This mode takes too long for a call: create a job.
	ReasonContextLengthExceeded = "CONTEXT_LENGTH_EXCEEDED" // The messages do not fit into any candidate's context window.
	ReasonContentBlocked        = "CONTENT_BLOCKED"         // A guardrail or a provider's filter refused the prompt.
	ReasonPayloadTooLarge       = "PAYLOAD_TOO_LARGE"       // The request is larger than the gateway takes: 32 MiB.
	ReasonUpstreamRejected      = "UPSTREAM_REJECTED"       // A provider refused a request that the gateway thought valid.

	ReasonInvalidAPIKey = "INVALID_API_KEY" // The key is missing, unknown, expired or revoked.

	ReasonPermissionDenied = "PERMISSION_DENIED"
	ReasonRouteNotAllowed  = "ROUTE_NOT_ALLOWED" // The key's plan does not include this route.

	ReasonModelNotFound        = "MODEL_NOT_FOUND" // No model, alias or route has this name; the message names the nearest.
	ReasonConversationNotFound = "CONVERSATION_NOT_FOUND"
	ReasonJobNotFound          = "JOB_NOT_FOUND"

	ReasonInsufficientCredits = "INSUFFICIENT_CREDITS" // The organisation cannot pay for this request.
	ReasonBudgetExhausted     = "BUDGET_EXHAUSTED"     // The credits ended while the answer was made.
	ReasonNoEligibleProvider  = "NO_ELIGIBLE_PROVIDER" // The constraints leave no candidate.

	ReasonIdempotencyConflict   = "IDEMPOTENCY_CONFLICT"    // The idempotency key belongs to another request.
	ReasonRequestAlreadyStarted = "REQUEST_ALREADY_STARTED" // A request with this key was begun, and how it ended is not known.

	ReasonRateLimited          = "RATE_LIMITED"          // Too many requests; see RetryAfter.
	ReasonModeRateLimited      = "MODE_RATE_LIMITED"     // Too many requests in this mode.
	ReasonTokenRateLimited     = "TOKEN_RATE_LIMITED"    // Too many tokens.
	ReasonConcurrencyExhausted = "CONCURRENCY_EXHAUSTED" // Too many requests at the same time.

	ReasonRequestInProgress = "REQUEST_IN_PROGRESS" // A request with this idempotency key is still running: ask again later.
	ReasonStreamInterrupted = "STREAM_INTERRUPTED"  // The answer broke off after part of it was sent.

	ReasonAllProvidersFailed = "ALL_PROVIDERS_FAILED" // Every candidate was tried. The gateway has retried already.
	ReasonOverloaded         = "OVERLOADED"           // The gateway sheds load.
	ReasonDraining           = "DRAINING"             // This replica is about to stop; another one will answer.

	ReasonUpstreamTimeout       = "UPSTREAM_TIMEOUT"        // The providers took longer than the gateway waits for them.
	ReasonUpstreamProtocolError = "UPSTREAM_PROTOCOL_ERROR" // A provider's answer could not be understood.
	ReasonInternalError         = "INTERNAL_ERROR"
)

// Error is a call that did not end with OK:
//
//	var failed *trunkline.Error
//	if errors.As(err, &failed) {
//		log.Print(failed.Reason, failed.RequestID)
//	}
//
// It wraps the error of gRPC.
type Error struct {
	Family  error      // One of this package, as ErrUnavailable.
	Reason  string     // Trunkline's word, as ReasonRateLimited.
	Code    codes.Code // The RPC's status.
	Message string     // For a person to read; programs look at Family or Reason.

	RequestID       string         // Of the gateway's log; empty where the gateway was not reached.
	RetryAfter      *time.Duration // How long to wait before the next try; nil where the gateway does not know.
	Provider        string         // The upstream that is meant, or empty.
	FieldViolations []FieldViolation

	// Retryable says whether a program may send the same request again by itself, after RetryAfter. It is false for
	// ReasonAllProvidersFailed and ReasonStreamInterrupted, where another try may work but is the caller's decision: the
	// gateway has retried already, or part of an answer was paid for.
	Retryable bool
	Metadata  map[string]string // Everything that the status' ErrorInfo carries.

	cause error
}

// FieldViolation is one thing that is wrong with a request.
type FieldViolation struct {
	Field       string // A path, as "spec.messages[0].parts".
	Description string
	Reason      string
}

func (e *Error) Error() string {
	if e.RequestID == "" {
		return e.Reason + ": " + e.Message
	}
	return fmt.Sprintf("%s: %s (request %s)", e.Reason, e.Message, e.RequestID)
}

// Is makes an Error one of its family, and of what package context calls the same.
func (e *Error) Is(target error) bool {
	switch target {
	case e.Family:
		return true
	case context.DeadlineExceeded:
		return e.Family == ErrDeadlineExceeded
	case context.Canceled:
		return e.Family == ErrCancelled
	}
	return false
}

func (e *Error) Unwrap() error { return e.cause }

const errorDomain = "trunkline"

// kind is what a code or a reason says of an error.
type kind struct {
	family      error
	isRetryable bool
}

var kindOfCode = map[codes.Code]kind{
	codes.InvalidArgument:    {ErrInvalidRequest, false},
	codes.Unauthenticated:    {ErrUnauthenticated, false},
	codes.PermissionDenied:   {ErrPermissionDenied, false},
	codes.NotFound:           {ErrNotFound, false},
	codes.FailedPrecondition: {ErrFailedPrecondition, false},
	codes.AlreadyExists:      {ErrConflict, false},
	codes.ResourceExhausted:  {ErrResourceExhausted, false},
	codes.Aborted:            {ErrAborted, false},
	codes.Unavailable:        {ErrUnavailable, true},
	codes.DeadlineExceeded:   {ErrDeadlineExceeded, false},
	codes.Canceled:           {ErrCancelled, false},
	codes.Unimplemented:      {ErrUnimplemented, false},
}

// A reason of ours decides, whatever a proxy made of the code. Those that are not here say no more than their code does.
var kindOfReason = map[string]kind{
	ReasonEmptyPrompt:           {ErrInvalidRequest, false},
	ReasonCapabilityUnsupported: {ErrInvalidRequest, false},
	ReasonModeRequiresJob:       {ErrInvalidRequest, false},
	ReasonContextLengthExceeded: {ErrInvalidRequest, false},
	ReasonContentBlocked:        {ErrInvalidRequest, false},
	ReasonPayloadTooLarge:       {ErrInvalidRequest, false},
	ReasonUpstreamRejected:      {ErrInvalidRequest, false},
	ReasonInvalidAPIKey:         {ErrUnauthenticated, false},
	ReasonRouteNotAllowed:       {ErrPermissionDenied, false},
	ReasonModelNotFound:         {ErrNotFound, false},
	ReasonConversationNotFound:  {ErrNotFound, false},
	ReasonJobNotFound:           {ErrNotFound, false},
	ReasonInsufficientCredits:   {ErrFailedPrecondition, false},
	ReasonBudgetExhausted:       {ErrFailedPrecondition, false},
	ReasonNoEligibleProvider:    {ErrFailedPrecondition, false},
	ReasonIdempotencyConflict:   {ErrConflict, false},
	ReasonRequestAlreadyStarted: {ErrConflict, false},
	ReasonRateLimited:           {ErrResourceExhausted, true},
	ReasonModeRateLimited:       {ErrResourceExhausted, true},
	ReasonTokenRateLimited:      {ErrResourceExhausted, true},
	ReasonConcurrencyExhausted:  {ErrResourceExhausted, true},
	ReasonRequestInProgress:     {ErrAborted, true},
	ReasonStreamInterrupted:     {ErrAborted, false},
	ReasonAllProvidersFailed:    {ErrUnavailable, false},
	ReasonOverloaded:            {ErrUnavailable, true},
	ReasonDraining:              {ErrUnavailable, true},
	ReasonUpstreamTimeout:       {ErrDeadlineExceeded, false},
	ReasonUpstreamProtocolError: {ErrInternal, false},
}

// translated is the Error that an ended RPC stands for; nil stays nil.
func translated(err error, header, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	rpc, details := rpcStatus(err), statusDetails(trailer)
	failed := &Error{
		Code:      knownCode(rpc.Code()),
		Message:   cmp.Or(details.GetMessage(), rpc.Message()),
		RequestID: requestID(trailer, header),
		cause:     err,
	}
	info := failed.take(details)
	kind := kindOf(failed.Code, info)
	failed.Family = kind.family
	failed.Reason = cmp.Or(info.GetReason(), code.Code(failed.Code).String())
	failed.Metadata = info.GetMetadata()
	failed.Provider = failed.Metadata["provider"]
	switch failed.Metadata["retryable"] {
	case "true":
		failed.Retryable = true
	case "false":
	default:
		failed.Retryable = kind.isRetryable
	}
	return failed
}

// take fills in what the details say, and gives the ErrorInfo; nil where there is none.
func (e *Error) take(details *spb.Status) (info *errdetails.ErrorInfo) {
	for _, packed := range details.GetDetails() {
		detail, err := packed.UnmarshalNew()
		if err != nil {
			continue // Of a newer gateway, or damaged.
		}
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.RequestInfo:
			e.RequestID = cmp.Or(detail.GetRequestId(), e.RequestID)
		case *errdetails.RetryInfo:
			if delay := detail.GetRetryDelay(); delay != nil {
				e.RetryAfter = new(delay.AsDuration())
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				e.FieldViolations = append(e.FieldViolations, FieldViolation{
					violation.GetField(), violation.GetDescription(), violation.GetReason(),
				})
			}
		}
	}
	return info
}

func kindOf(code codes.Code, info *errdetails.ErrorInfo) kind {
	if info.GetDomain() == errorDomain {
		if known, ok := kindOfReason[info.GetReason()]; ok {
			return known
		}
	}
	if known, ok := kindOfCode[code]; ok {
		return known
	}
	return kind{ErrInternal, false}
}

// knownCode is UNKNOWN for a number that is no code, as in the other languages.
func knownCode(number codes.Code) codes.Code {
	if _, ok := code.Code_name[int32(number)]; ok {
		return number
	}
	return codes.Unknown
}

// requestID is the one that is told first.
func requestID(told ...metadata.MD) string {
	for _, headers := range told {
		if found := headers.Get("x-request-id"); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// rpcStatus is the status that ended the RPC. An error that gRPC wraps in words of its own, as it does with the last of
// several tries, is unwrapped first: status.FromError would mix those words into the gateway's.
func rpcStatus(err error) *status.Status {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus()
	}
	return status.FromContextError(err)
}

// statusDetails is what the gateway says in full; nil where it says nothing that can be read, as when a proxy has cut it
// off. It is read from the trailer and not from gRPC's status, which drops details that contradict the code.
func statusDetails(trailer metadata.MD) *spb.Status {
	encoded := trailer.Get("grpc-status-details-bin")
	if len(encoded) == 0 {
		return nil
	}
	details := new(spb.Status)
	if proto.Unmarshal([]byte(encoded[len(encoded)-1]), details) != nil {
		return nil
	}
	return details
}

// interrupted is an answer that ended without its last event, or that was taken back.
func interrupted(message string) error {
	return &Error{
		Family:  ErrAborted,
		Reason:  ReasonStreamInterrupted,
		Code:    codes.Aborted,
		Message: message,
		cause:   status.Error(codes.Aborted, message),
	}
}

func refused(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrArgument}, a...)...)
}
