package trunkline

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestEachRoleHasItsConstructor(t *testing.T) {
	call := &v1.ToolCall{Id: "a", Name: "f", ArgumentsJson: "{}"}
	named := User("u", "v")
	named.Name = "Ann"

	wants(t, System("s"), `{"role": "ROLE_SYSTEM", "parts": [{"text": "s"}]}`)
	wants(t, Developer("d"), `{"role": "ROLE_DEVELOPER", "parts": [{"text": "d"}]}`)
	wants(t, named, `{"role": "ROLE_USER", "parts": [{"text": "u"}, {"text": "v"}], "name": "Ann"}`)
	wants(t, Assistant("a"), `{"role": "ROLE_ASSISTANT", "parts": [{"text": "a"}]}`)
	wants(t, Assistant(call), `{"role": "ROLE_ASSISTANT", "parts": [
		{"toolCall": {"id": "a", "name": "f", "argumentsJson": "{}"}}]}`)
	wants(t, ToolResult(call, "r"), `{"role": "ROLE_TOOL", "parts": [
		{"toolResult": {"toolCallId": "a", "toolName": "f", "parts": [{"text": "r"}]}}]}`)
	wants(t, ToolError(call, TextPart("r")), `{"role": "ROLE_TOOL", "parts": [
		{"toolResult": {"toolCallId": "a", "toolName": "f", "parts": [{"text": "r"}], "isError": true}}]}`)
}

func TestMediaAreGivenByAddressOrByBytes(t *testing.T) {
	photo := URL("https://example.com/a.png")
	photo.Detail = "low"

	wants(t, User(TextPart("What is this?"), Image(photo)), `{"role": "ROLE_USER", "parts": [
		{"text": "What is this?"}, {"image": {"url": "https://example.com/a.png", "detail": "low"}}]}`)
	wants(t, Document(Data([]byte("%PDF"), "application/pdf")),
		`{"document": {"data": "JVBERg==", "mimeType": "application/pdf"}}`)
}

func TestToolsAndFormatsKeepTheirSchema(t *testing.T) {
	const schema = `{"type":"object","properties":{"z":{},"ä":{}}}`

	wants(t, FunctionTool("f", "Does.", schema), `{"name": "f", "description": "Does.",
		"parametersSchemaJson": "{\"type\":\"object\",\"properties\":{\"z\":{},\"ä\":{}}}"}`)
	wants(t, JSONSchema("n", schema), `{"jsonSchema": {"name": "n", "strict": true,
		"schemaJson": "{\"type\":\"object\",\"properties\":{\"z\":{},\"ä\":{}}}"}}`)
	wants(t, JSONObject(), `{"jsonObject": {}}`)
	wants(t, OnlyTool("f"), `{"toolName": "f"}`)
}

func TestAnAnswerIsReadInTheOrderOfItsParts(t *testing.T) {
	completion := from[v1.Completion](t, `{"choices": [
		{"index": 1, "message": {"parts": [{"text": "other"}]}},
		{"message": {"parts": [
			{"text": "a"}, {"toolCall": {"id": "1", "argumentsJson": "{\"x\": 1}"}},
			{"text": "b"}, {"toolCall": {"id": "2"}}]}}]}`)

	calls := ToolCalls(completion)
	if Text(completion) != "ab" || len(calls) != 2 || calls[1].GetId() != "2" {
		t.Error(completion)
	}
	for i, want := range []int{1, 0} {
		if given, err := Arguments[struct{ X int }](calls[i]); err != nil || given.X != want {
			t.Error(given, err)
		}
	}
	if Text(nil) != "" || ToolCalls(new(v1.Completion)) != nil {
		t.Error("an answer of nothing")
	}
}

func TestArgumentsThatWereCutOffAreAnError(t *testing.T) {
	if given, err := Arguments[map[string]any](&v1.ToolCall{ArgumentsJson: `{"x":`}); err == nil {
		t.Error(given)
	}
}

func TestTurnsAreThoseOfServerSideToolsAndThenTheAnswer(t *testing.T) {
	completion := from[v1.Completion](t, `{"choices": [{"message": {"parts": [{"text": "done"}]}}],
		"transcript": [{"role": "ROLE_TOOL"}]}`)

	turns := Turns(completion)

	if len(turns) != 2 || turns[0].GetRole() != v1.Role_ROLE_TOOL || turns[1] != completion.Choices[0].Message {
		t.Error(turns)
	}
	if Turns(new(v1.Completion)) != nil {
		t.Error("turns of nothing")
	}
}

func TestOptionsBecomeASpec(t *testing.T) {
	request, err := newRequest(Messages{User("Hi")}, []CompletionOption{
		WithModel("m"),
		WithSystemPrompt("s"),
		WithTemperature(0),
		WithMaxOutputTokens(5),
		WithStop("."),
		WithTools(&v1.Tool{Name: "f"}),
		WithToolChoiceMode("required"),
		WithParallelToolCalls(false),
		WithResponseFormat(JSONObject()),
		WithReasoningEffort("high"),
		WithReasoning(),
		WithConstraints(&v1.RoutingConstraints{MaxAttempts: new(int32(1))}),
		WithLabels(map[string]string{"team": "a"}),
		WithMetadataJSON(`{"a":1}`),
		WithMode("fast"),
	})
	if err != nil {
		t.Fatal(err)
	}

	wants(t, request.spec, `{
		"model": "m",
		"systemPrompt": "s",
		"messages": [{"role": "ROLE_USER", "parts": [{"text": "Hi"}]}],
		"sampling": {"temperature": 0, "maxOutputTokens": 5, "stop": ["."]},
		"toolOptions": {
			"tools": [{"name": "f"}],
			"choice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"},
			"parallelCalls": false
		},
		"responseFormat": {"jsonObject": {}},
		"reasoning": {"effort": "REASONING_EFFORT_HIGH", "include": true},
		"constraints": {"maxAttempts": 1},
		"labels": {"team": "a"},
		"metadataJson": "{\"a\":1}",
		"mode": "fast"
	}`)
}

func TestWhatMakesNoRequestIsRefused(t *testing.T) {
	client := closing(t)(NewClient("127.0.0.1:1"))
	whole := Spec(&v1.CompletionSpec{Model: "m"})
	for name, ask := range map[string]func() error{
		"nothing":              func() error { return failing(client.Complete(t.Context(), nil)) },
		"a spec and an option": func() error { return failing(client.Complete(t.Context(), whole, WithModel("n"))) },
		"no mode": func() error {
			return failing(client.Complete(t.Context(), Prompt("Hi"), WithToolChoiceMode("sometimes")))
		},
		"no effort": func() error { return failing(client.Stream(t.Context(), Prompt("Hi"), WithReasoningEffort("heroic"))) },
		"no stream": func() error {
			return failing(client.Complete(t.Context(), Prompt("Hi"), WithStreamOptions(new(v1.StreamOptions))))
		},
		"no answer": func() error { return failing(client.PreviewRoute(t.Context(), whole, WithIdempotencyKey("once"))) },
	} {
		if err := ask(); !errors.Is(err, ErrArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func failing(_ any, err error) error { return err }

// wants compares whole messages, the wanted one in JSON.
func wants[T any, M interface {
	*T
	proto.Message
}](t *testing.T, got M, want string) {
	t.Helper()
	if wanted := M(from[T, M](t, want)); !proto.Equal(got, wanted) {
		t.Errorf("%v instead of %v", got, wanted)
	}
}

func from[T any, M interface {
	*T
	proto.Message
}](t *testing.T, text string) M {
	t.Helper()
	message := M(new(T))
	if err := protojson.Unmarshal([]byte(text), message); err != nil {
		t.Fatal(err)
	}
	return message
}
