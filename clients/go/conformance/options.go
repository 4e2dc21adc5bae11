package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

type clientOptions struct {
	Target           string            `json:"target"`
	APIKey           *string           `json:"api_key"`
	TLS              bool              `json:"tls"`
	RootCertificates string            `json:"root_certificates"`
	AllowInsecureKey bool              `json:"allow_insecure_key"`
	DefaultTimeoutS  *float64          `json:"default_timeout_s"`
	Metadata         map[string]string `json:"metadata"`
}

func (c *clientOptions) newClient() (*trunkline.Client, error) {
	var options []trunkline.ClientOption
	if c.APIKey != nil {
		options = append(options, trunkline.WithAPIKey(*c.APIKey))
	}
	if c.RootCertificates != "" {
		pem, err := os.ReadFile(c.RootCertificates)
		if err != nil {
			panic(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		options = append(options, trunkline.WithTLS(&tls.Config{RootCAs: roots}))
	} else if c.TLS {
		options = append(options, trunkline.WithTLS(nil))
	}
	if c.AllowInsecureKey {
		options = append(options, trunkline.WithInsecureKey())
	}
	if c.DefaultTimeoutS != nil {
		options = append(options, trunkline.WithDefaultTimeout(seconds(*c.DefaultTimeoutS)))
	}
	for name, value := range c.Metadata {
		options = append(options, trunkline.WithHeader(name, value))
	}
	return trunkline.NewClient(c.Target, options...)
}

type call struct {
	Method      string       `json:"method"`
	Prompt      *string      `json:"prompt"`
	PromptChars int          `json:"prompt_chars"`
	Spec        []byte       `json:"spec"`
	Options     *specOptions `json:"options"`

	TimeoutS           *float64          `json:"timeout_s"`
	IdempotencyKey     string            `json:"idempotency_key"`
	RequestID          *string           `json:"request_id"`
	Traceparent        *string           `json:"traceparent"`
	Tracestate         *string           `json:"tracestate"`
	Metadata           map[string]string `json:"metadata"`
	HeartbeatIntervalS *float64          `json:"heartbeat_interval_s"`

	LeaveAfter   int     `json:"leave_after"`
	ReadDelayMS  int     `json:"read_delay_ms"`
	CancelAfterS float64 `json:"cancel_after_s"`
	Then         string  `json:"then"`

	ModelID        string `json:"model_id"`
	JobID          string `json:"job_id"`
	ConversationID string `json:"conversation_id"`
	Kind           string `json:"kind"`
	CallbackURL    string `json:"callback_url"`
	AfterSequence  int64  `json:"after_sequence"`
	Title          string `json:"title"`
	MetadataJSON   string `json:"metadata_json"`
	PageSize       int32  `json:"page_size"`

	Results map[string]struct {
		Text    string `json:"text"`
		IsError bool   `json:"is_error"`
	} `json:"results"`
	Events  [][]byte `json:"events"`
	Count   int      `json:"count"`
	API     string   `json:"api"`
	Seconds float64  `json:"seconds"`
}

type specOptions struct {
	Model                 *string           `json:"model"`
	SystemPrompt          *string           `json:"system_prompt"`
	Temperature           *float64          `json:"temperature"`
	TopP                  *float64          `json:"top_p"`
	TopK                  *int32            `json:"top_k"`
	MaxOutputTokens       *int32            `json:"max_output_tokens"`
	Stop                  []string          `json:"stop"`
	Seed                  *int64            `json:"seed"`
	CandidateCount        *int32            `json:"candidate_count"`
	ToolChoice            json.RawMessage   `json:"tool_choice"`
	ParallelToolCalls     *bool             `json:"parallel_tool_calls"`
	MaxHops               *int32            `json:"max_hops"`
	ReasoningEffort       *string           `json:"reasoning_effort"`
	ReasoningBudgetTokens *int32            `json:"reasoning_budget_tokens"`
	IncludeReasoning      bool              `json:"include_reasoning"`
	Mode                  *string           `json:"mode"`
	Persona               *string           `json:"persona"`
	Skills                []string          `json:"skills"`
	ConversationID        *string           `json:"conversation_id"`
	SessionID             *string           `json:"session_id"`
	EndUserID             *string           `json:"end_user_id"`
	Labels                map[string]string `json:"labels"`
	MetadataJSON          *string           `json:"metadata_json"`
	Tools                 []struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"schema"`
	} `json:"tools"`
	JSONSchema *struct {
		Name   string          `json:"name"`
		Schema json.RawMessage `json:"schema"`
	} `json:"json_schema"`
}

// input is what is asked for; nil where the call says nothing of it.
func (c *call) input() trunkline.Input {
	switch {
	case c.Spec != nil:
		return trunkline.Spec(decoded[v1.CompletionSpec](c.Spec))
	case c.PromptChars > 0:
		return trunkline.Prompt(strings.Repeat("x", c.PromptChars))
	case c.Prompt != nil:
		return trunkline.Prompt(*c.Prompt)
	}
	return nil
}

func (c *call) callOptions() []trunkline.CallOption {
	var options []trunkline.CallOption
	for name, value := range c.Metadata {
		options = append(options, trunkline.WithHeader(name, value))
	}
	options = addCall(options, c.RequestID, trunkline.WithRequestID)
	options = addCall(options, c.Traceparent, trunkline.WithTraceparent)
	options = addCall(options, c.Tracestate, trunkline.WithTracestate)
	if c.PageSize != 0 {
		options = append(options, trunkline.WithPageSize(c.PageSize))
	}
	return options
}

func addCall(options []trunkline.CallOption, value *string, option func(string) trunkline.CallOption) []trunkline.CallOption {
	if value == nil {
		return options
	}
	return append(options, option(*value))
}

func (c *call) completionOptions() []trunkline.CompletionOption {
	var options []trunkline.CompletionOption
	for _, option := range c.callOptions() {
		options = append(options, option)
	}
	if c.IdempotencyKey != "" {
		options = append(options, trunkline.WithIdempotencyKey(c.IdempotencyKey))
	}
	if c.HeartbeatIntervalS != nil {
		options = append(options, trunkline.WithStreamOptions(&v1.StreamOptions{
			HeartbeatInterval: durationpb.New(seconds(*c.HeartbeatIntervalS)),
		}))
	}
	if c.Options != nil {
		options = append(options, c.Options.completionOptions()...)
	}
	return options
}

func (o *specOptions) completionOptions() []trunkline.CompletionOption {
	var options []trunkline.CompletionOption
	options = add(options, o.Model, trunkline.WithModel)
	options = add(options, o.SystemPrompt, trunkline.WithSystemPrompt)
	options = add(options, o.Temperature, trunkline.WithTemperature)
	options = add(options, o.TopP, trunkline.WithTopP)
	options = add(options, o.TopK, trunkline.WithTopK)
	options = add(options, o.MaxOutputTokens, trunkline.WithMaxOutputTokens)
	options = add(options, o.Seed, trunkline.WithSeed)
	options = add(options, o.CandidateCount, trunkline.WithCandidateCount)
	options = add(options, o.ParallelToolCalls, trunkline.WithParallelToolCalls)
	options = add(options, o.MaxHops, trunkline.WithMaxHops)
	options = add(options, o.ReasoningEffort, trunkline.WithReasoningEffort)
	options = add(options, o.ReasoningBudgetTokens, trunkline.WithReasoningBudgetTokens)
	options = add(options, o.Mode, trunkline.WithMode)
	options = add(options, o.Persona, trunkline.WithPersona)
	options = add(options, o.ConversationID, trunkline.WithConversationID)
	options = add(options, o.SessionID, trunkline.WithSessionID)
	options = add(options, o.EndUserID, trunkline.WithEndUserID)
	options = add(options, o.MetadataJSON, trunkline.WithMetadataJSON)
	if o.Stop != nil {
		options = append(options, trunkline.WithStop(o.Stop...))
	}
	if o.Skills != nil {
		options = append(options, trunkline.WithSkills(o.Skills...))
	}
	if o.Labels != nil {
		options = append(options, trunkline.WithLabels(o.Labels))
	}
	if o.IncludeReasoning {
		options = append(options, trunkline.WithReasoning())
	}
	if o.ToolChoice != nil {
		options = append(options, toolChoice(o.ToolChoice))
	}
	if o.Tools != nil {
		tools := make([]*v1.Tool, len(o.Tools))
		for i, tool := range o.Tools {
			tools[i] = trunkline.FunctionTool(tool.Name, tool.Description, compact(tool.Schema))
		}
		options = append(options, trunkline.WithTools(tools...))
	}
	if o.JSONSchema != nil {
		format := trunkline.JSONSchema(o.JSONSchema.Name, compact(o.JSONSchema.Schema))
		options = append(options, trunkline.WithResponseFormat(format))
	}
	return options
}

func toolChoice(given json.RawMessage) trunkline.CompletionOption {
	var mode string
	if json.Unmarshal(given, &mode) == nil {
		return trunkline.WithToolChoiceMode(mode)
	}
	var one struct {
		ToolName string `json:"tool_name"`
	}
	if err := json.Unmarshal(given, &one); err != nil {
		panic(err)
	}
	return trunkline.WithToolChoice(trunkline.OnlyTool(one.ToolName))
}

// compact writes JSON as all languages do here; the client sends what it is given.
func compact(given json.RawMessage) string {
	var written bytes.Buffer
	if err := json.Compact(&written, given); err != nil {
		panic(err)
	}
	return written.String()
}

func add[T any](options []trunkline.CompletionOption, value *T, option func(T) trunkline.CompletionOption) []trunkline.CompletionOption {
	if value == nil {
		return options
	}
	return append(options, option(*value))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func decoded[T any, M interface {
	*T
	proto.Message
}](encoded []byte) M {
	message := M(new(T))
	if err := proto.Unmarshal(encoded, message); err != nil {
		panic(err)
	}
	return message
}

func encoded(message proto.Message) []byte {
	made, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return made
}
