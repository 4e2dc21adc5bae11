package trunkline

import (
	"crypto/tls"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// A ClientOption is an option of NewClient.
type ClientOption interface{ applyToClient(*settings) error }

// A CallOption is an option of any call.
type CallOption interface {
	CompletionOption
	applyToCall(*call) error
}

// A CompletionOption is an option of one completion: of its spec or of its call. What is left out is the gateway's to
// decide.
type CompletionOption interface{ applyToCompletion(*request) error }

// call is what the options of one call say.
type call struct {
	headers  metadata.MD
	pageSize int32
}

// request is what the prompt and options of one completion say.
type request struct {
	call
	spec           *v1.CompletionSpec
	isSpecWhole    bool
	idempotencyKey string
	streamOptions  *v1.StreamOptions
}

type clientOption func(*settings) error

func (o clientOption) applyToClient(s *settings) error { return o(s) }

type callOption func(*call) error

func (o callOption) applyToCall(c *call) error          { return o(c) }
func (o callOption) applyToCompletion(r *request) error { return o(&r.call) }

type completionOption func(*request) error

func (o completionOption) applyToCompletion(r *request) error { return o(r) }

type specOption func(*v1.CompletionSpec)

func (o specOption) applyToCompletion(r *request) error {
	if r.isSpecWhole {
		return refused("a spec is complete: give no options of it beside it")
	}
	o(r.spec)
	return nil
}

// WithAPIKey sends a key with each call. In plaintext it goes to this machine only, to loopback addresses and Unix
// sockets, unless WithInsecureKey insists.
func WithAPIKey(key string) ClientOption {
	return clientOption(func(s *settings) error {
		if !keyText.MatchString(key) {
			return refused("a key is printable ASCII without spaces or line ends")
		}
		s.apiKey = &key
		return nil
	})
}

// WithTLS encrypts. A nil config trusts the roots of the system; RootCAs and Certificates of a config are for a private
// authority and mutual TLS.
func WithTLS(config *tls.Config) ClientOption {
	return clientOption(func(s *settings) error {
		if config == nil {
			config = new(tls.Config)
		}
		s.tls = config
		return nil
	})
}

// WithInsecureKey lets the key travel over a network in plaintext.
func WithInsecureKey() ClientOption {
	return clientOption(func(s *settings) error {
		s.allowInsecureKey = true
		return nil
	})
}

// WithDefaultTimeout bounds calls whose context has no deadline. Without it they have 600 s.
func WithDefaultTimeout(timeout time.Duration) ClientOption {
	return clientOption(func(s *settings) error {
		s.defaultTimeout = timeout
		return nil
	})
}

// WithDialOptions gives gRPC options, which win over this client's own.
func WithDialOptions(options ...grpc.DialOption) ClientOption {
	return clientOption(func(s *settings) error {
		s.dialOptions = append(s.dialOptions, options...)
		return nil
	})
}

// A HeaderOption is a header of every call of a client, or of one call.
type HeaderOption interface {
	ClientOption
	CallOption
}

type headerOption struct {
	clientOption
	callOption
}

// WithHeader sends a header: printable ASCII, or bytes under a name that ends with "-bin". A key is no header, see
// WithAPIKey.
func WithHeader(name, value string) HeaderOption {
	return headerOption{
		func(s *settings) error { return setHeader(s.headers, name, value) },
		func(c *call) error { return setHeader(c.headers, name, value) },
	}
}

// WithRequestID names a request, in the gateway's log too: 8 to 64 of A-Z, a-z, 0-9, _ and -. Without it the gateway
// mints a name.
func WithRequestID(id string) CallOption {
	return callOption(func(c *call) error {
		if !requestIDText.MatchString(id) {
			return refused("a request id is 8 to 64 of A-Z, a-z, 0-9, _ and -")
		}
		return setHeader(c.headers, "x-request-id", id)
	})
}

// WithTraceparent gives the W3C trace context, which is also carried to the provider.
func WithTraceparent(traceparent string) CallOption {
	return callOption(func(c *call) error { return setHeader(c.headers, "traceparent", traceparent) })
}

// WithTracestate gives the W3C trace state.
func WithTracestate(tracestate string) CallOption {
	return callOption(func(c *call) error { return setHeader(c.headers, "tracestate", tracestate) })
}

// WithPageSize says how many items a listing fetches at a time; other calls have no pages. Without it the gateway decides.
func WithPageSize(size int32) CallOption {
	return callOption(func(c *call) error {
		c.pageSize = size
		return nil
	})
}

// WithIdempotencyKey has the same request with the same key, of at most 255 characters, answered once.
func WithIdempotencyKey(key string) CompletionOption {
	return completionOption(func(r *request) error {
		r.idempotencyKey = key
		return nil
	})
}

// WithStreamOptions is for Client.Stream only. A heartbeat turns retries off.
func WithStreamOptions(options *v1.StreamOptions) CompletionOption {
	return completionOption(func(r *request) error {
		r.streamOptions = options
		return nil
	})
}

func sampling(set func(*v1.SamplingOptions)) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) {
		if s.Sampling == nil {
			s.Sampling = new(v1.SamplingOptions)
		}
		set(s.Sampling)
	})
}

func tools(set func(*v1.ToolOptions)) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) {
		if s.ToolOptions == nil {
			s.ToolOptions = new(v1.ToolOptions)
		}
		set(s.ToolOptions)
	})
}

func reasoning(set func(*v1.ReasoningOptions)) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) {
		if s.Reasoning == nil {
			s.Reasoning = new(v1.ReasoningOptions)
		}
		set(s.Reasoning)
	})
}

// WithModel names "provider/model", a catalog id or alias, or a route. Empty: the router decides.
func WithModel(model string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Model = model })
}

// WithSystemPrompt is short for a leading system message.
func WithSystemPrompt(prompt string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.SystemPrompt = prompt })
}

// WithTemperature is from 0 to 2.
func WithTemperature(temperature float64) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.Temperature = &temperature })
}

// WithTopP samples from the likeliest tokens that together have this probability.
func WithTopP(p float64) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.TopP = &p })
}

// WithTopK samples from so many of the likeliest tokens.
func WithTopK(k int32) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.TopK = &k })
}

// WithMaxOutputTokens bounds the answer.
func WithMaxOutputTokens(tokens int32) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.MaxOutputTokens = &tokens })
}

// WithStop ends the answer before one of these texts.
func WithStop(stop ...string) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.Stop = stop })
}

// WithSeed asks for the same answer again, where a provider can give it.
func WithSeed(seed int64) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.Seed = &seed })
}

// WithFrequencyPenalty makes tokens less likely the more often they came.
func WithFrequencyPenalty(penalty float64) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.FrequencyPenalty = &penalty })
}

// WithPresencePenalty makes tokens less likely once they came.
func WithPresencePenalty(penalty float64) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.PresencePenalty = &penalty })
}

// WithCandidateCount asks for so many choices, at most 8.
func WithCandidateCount(count int32) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.CandidateCount = &count })
}

// WithLogprobs asks for the log probabilities of tokens.
func WithLogprobs(logprobs bool) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.Logprobs = &logprobs })
}

// WithTopLogprobs asks for those of so many other tokens at each place.
func WithTopLogprobs(count int32) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.TopLogprobs = &count })
}

// WithVerbosity is a provider's word for how much to say.
func WithVerbosity(verbosity string) CompletionOption {
	return sampling(func(s *v1.SamplingOptions) { s.Verbosity = verbosity })
}

// WithTools lets the model call tools, see FunctionTool.
func WithTools(list ...*v1.Tool) CompletionOption {
	return tools(func(o *v1.ToolOptions) { o.Tools = list })
}

// WithToolChoice says which tools may or must be called, see OnlyTool; WithToolChoiceMode is shorter for most.
func WithToolChoice(choice *v1.ToolChoice) CompletionOption {
	return tools(func(o *v1.ToolOptions) { o.Choice = choice })
}

// WithToolChoiceMode is "auto", "none" or "required".
func WithToolChoiceMode(mode string) CompletionOption {
	value, ok := v1.ToolChoiceMode_value["TOOL_CHOICE_MODE_"+strings.ToUpper(mode)]
	if !ok {
		return refusal("%q is no mode of choosing tools", mode)
	}
	return WithToolChoice(&v1.ToolChoice{Choice: &v1.ToolChoice_Mode{Mode: v1.ToolChoiceMode(value)}})
}

// WithParallelToolCalls says whether the model may call several tools in one turn.
func WithParallelToolCalls(parallel bool) CompletionOption {
	return tools(func(o *v1.ToolOptions) { o.ParallelCalls = &parallel })
}

// WithMaxHops bounds the model turns that may run server-side tools, 1 to 20.
func WithMaxHops(hops int32) CompletionOption {
	return tools(func(o *v1.ToolOptions) { o.MaxHops = &hops })
}

// WithResponseFormat asks for JSON, see JSONObject and JSONSchema.
func WithResponseFormat(format *v1.ResponseFormat) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.ResponseFormat = format })
}

// WithReasoningEffort is "none", "minimal", "low", "medium", "high", "xhigh" or "max".
func WithReasoningEffort(effort string) CompletionOption {
	value, ok := v1.ReasoningEffort_value["REASONING_EFFORT_"+strings.ToUpper(effort)]
	if !ok {
		return refusal("%q is no reasoning effort", effort)
	}
	return reasoning(func(o *v1.ReasoningOptions) { o.Effort = v1.ReasoningEffort(value) })
}

// WithReasoningBudgetTokens bounds the tokens spent on reasoning.
func WithReasoningBudgetTokens(tokens int32) CompletionOption {
	return reasoning(func(o *v1.ReasoningOptions) { o.BudgetTokens = &tokens })
}

// WithReasoning returns the reasoning with the answer.
func WithReasoning() CompletionOption {
	return reasoning(func(o *v1.ReasoningOptions) { o.Include = true })
}

// WithMode names one of the modes that the operator configured, as "fast".
func WithMode(mode string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Mode = mode })
}

// WithIntent tells the router what matters.
func WithIntent(intent *v1.RoutingIntent) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Intent = intent })
}

// WithConstraints tells the router what must be.
func WithConstraints(constraints *v1.RoutingConstraints) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Constraints = constraints })
}

// WithCache says whether an answer may come from the cache.
func WithCache(policy *v1.CachePolicy) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Cache = policy })
}

// WithUnsupportedPolicy says what happens to an option that a candidate cannot honour.
func WithUnsupportedPolicy(policy v1.UnsupportedPolicy) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.UnsupportedPolicy = policy })
}

// WithPersona names who answers; "none" is the raw model.
func WithPersona(persona string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Persona = persona })
}

// WithSkills names skills, in order of precedence.
func WithSkills(slugs ...string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Skills = slugs })
}

// WithConversationID goes on with a conversation that the gateway keeps.
func WithConversationID(id string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.ConversationId = id })
}

// WithSessionID says what the request is a part of, for attribution.
func WithSessionID(id string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.SessionId = id })
}

// WithEndUserID says on whose behalf the caller asks.
func WithEndUserID(id string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.EndUserId = id })
}

// WithServiceTier is a provider's word for how fast it serves.
func WithServiceTier(tier string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.ServiceTier = tier })
}

// WithMetadataJSON is any JSON object, echoed byte for byte and kept in the audit log. It is not the call's headers.
func WithMetadataJSON(object string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.MetadataJson = object })
}

// WithLabels are for chargeback, at most 16, echoed in usage and audit.
func WithLabels(labels map[string]string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.Labels = labels })
}

// WithProviderOptionsJSON maps a provider's id, or "*", to a JSON object of parameters that the contract does not model.
func WithProviderOptionsJSON(options map[string]string) CompletionOption {
	return specOption(func(s *v1.CompletionSpec) { s.ProviderOptionsJson = options })
}

// refusal is an option that cannot be had; the call says so.
func refusal(format string, a ...any) CompletionOption {
	return completionOption(func(*request) error { return refused(format, a...) })
}
