package trunkline

import (
	"encoding/json"
	"strings"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// An Input is what a completion is asked for: a Prompt, Messages or a Spec.
type Input interface{ newRequest() *request }

// Prompt is one user turn as text.
type Prompt string

// Messages are a whole conversation, oldest first.
type Messages []*v1.Message

// Spec is a whole spec, for what the options do not say. None of them can be given beside it.
func Spec(spec *v1.CompletionSpec) Input { return wholeSpec{spec} }

type wholeSpec struct{ spec *v1.CompletionSpec }

func (p Prompt) newRequest() *request { return Messages{User(string(p))}.newRequest() }

func (m Messages) newRequest() *request {
	return &request{spec: &v1.CompletionSpec{Messages: m}}
}

func (w wholeSpec) newRequest() *request { return &request{spec: w.spec, isSpecWhole: true} }

// Content is what a message is made of: text, or a part, as of Image. One message takes either; TextPart is for mixing
// them.
type Content interface{ string | *v1.Part }

// System is a system message.
func System[C Content](content ...C) *v1.Message { return message(v1.Role_ROLE_SYSTEM, content) }

// Developer is a message of instructions that rank below the system's.
func Developer[C Content](content ...C) *v1.Message { return message(v1.Role_ROLE_DEVELOPER, content) }

// User is a user's turn. In a chat of many, set its Name.
func User[C Content](content ...C) *v1.Message { return message(v1.Role_ROLE_USER, content) }

// Assistant is a model's turn, replayed. For an answer of the gateway use Turns, which keeps all of it.
func Assistant[C Content | *v1.ToolCall](content ...C) *v1.Message {
	return message(v1.Role_ROLE_ASSISTANT, content)
}

// ToolResult answers one tool call; each has a message of its own.
func ToolResult[C Content](call *v1.ToolCall, content ...C) *v1.Message {
	return toolResult(&v1.ToolResult{ToolCallId: call.GetId(), ToolName: call.GetName(), Parts: parts(content)})
}

// ToolError answers one tool call that failed, with what the model is to know of it.
func ToolError[C Content](call *v1.ToolCall, content ...C) *v1.Message {
	return toolResult(&v1.ToolResult{
		ToolCallId: call.GetId(), ToolName: call.GetName(), Parts: parts(content), IsError: true,
	})
}

// TextPart is text beside parts of other kinds.
func TextPart(text string) *v1.Part { return &v1.Part{Content: &v1.Part_Text{Text: text}} }

// Image is an image, as Image(URL(address)) or Image(Data(png, "image/png")). Its Detail may be auto, low or high.
func Image(media *v1.Media) *v1.Part { return &v1.Part{Content: &v1.Part_Image{Image: media}} }

// Document is a document, as Document(Data(pdf, "application/pdf")). It may have a Filename.
func Document(media *v1.Media) *v1.Part { return &v1.Part{Content: &v1.Part_Document{Document: media}} }

// URL is a medium by its address.
func URL(address string) *v1.Media { return &v1.Media{Source: &v1.Media_Url{Url: address}} }

// Data is a medium by its bytes, with their IANA media type.
func Data(data []byte, mimeType string) *v1.Media {
	return &v1.Media{Source: &v1.Media_Data{Data: data}, MimeType: mimeType}
}

// FunctionTool is a tool that the caller runs. The name is of [a-zA-Z0-9_-]{1,64}, the description is for the model, and
// the schema is the JSON Schema of the arguments, an object's, sent as it is. Strict may be set where arguments must
// match the schema exactly.
func FunctionTool(name, description, schema string) *v1.Tool {
	return &v1.Tool{Name: name, Description: description, ParametersSchemaJson: schema}
}

// OnlyTool makes the model call this tool, see WithToolChoice.
func OnlyTool(name string) *v1.ToolChoice {
	return &v1.ToolChoice{Choice: &v1.ToolChoice_ToolName{ToolName: name}}
}

// JSONObject makes the answer a JSON object, of any shape.
func JSONObject() *v1.ResponseFormat {
	return &v1.ResponseFormat{Format: &v1.ResponseFormat_JsonObject{JsonObject: new(v1.JsonObjectFormat)}}
}

// JSONSchema makes the answer JSON that matches this JSON Schema exactly, unless Strict is taken from it.
func JSONSchema(name, schema string) *v1.ResponseFormat {
	return &v1.ResponseFormat{Format: &v1.ResponseFormat_JsonSchema{
		JsonSchema: &v1.JsonSchemaFormat{Name: name, SchemaJson: schema, Strict: new(true)},
	}}
}

// Text is the text of an answer, all its text parts together; empty where it has none. Of several choices this, as
// ToolCalls and Turns, reads the first.
func Text(completion *v1.Completion) string {
	var text strings.Builder
	for _, part := range answer(completion).GetParts() {
		text.WriteString(part.GetText())
	}
	return text.String()
}

// ToolCalls are the calls that the caller is asked to run, in order.
func ToolCalls(completion *v1.Completion) []*v1.ToolCall {
	var calls []*v1.ToolCall
	for _, part := range answer(completion).GetParts() {
		if call := part.GetToolCall(); call != nil {
			calls = append(calls, call)
		}
	}
	return calls
}

// Arguments decodes the arguments of a call, none as an empty object. What the model wrote may be no JSON, as when its
// output was cut off at a length.
func Arguments[T any](call *v1.ToolCall) (T, error) {
	var arguments T
	text := call.GetArgumentsJson()
	if text == "" {
		text = "{}"
	}
	err := json.Unmarshal([]byte(text), &arguments)
	return arguments, err
}

// Turns are what to append to the messages to go on: the turns of server-side tools, then the answer as it is. Its parts
// keep opaque state that some providers must get back byte for byte.
func Turns(completion *v1.Completion) []*v1.Message {
	turns := append([]*v1.Message(nil), completion.GetTranscript()...)
	if answer := answer(completion); answer != nil {
		turns = append(turns, answer)
	}
	return turns
}

func answer(completion *v1.Completion) *v1.Message {
	for _, choice := range completion.GetChoices() {
		if choice.GetIndex() == 0 {
			return choice.GetMessage()
		}
	}
	return nil
}

func message[C Content | *v1.ToolCall](role v1.Role, content []C) *v1.Message {
	return &v1.Message{Role: role, Parts: parts(content)}
}

func toolResult(result *v1.ToolResult) *v1.Message {
	return &v1.Message{
		Role:  v1.Role_ROLE_TOOL,
		Parts: []*v1.Part{{Content: &v1.Part_ToolResult{ToolResult: result}}},
	}
}

func parts[C Content | *v1.ToolCall](content []C) []*v1.Part {
	made := make([]*v1.Part, len(content))
	for i, piece := range content {
		switch piece := any(piece).(type) {
		case string:
			made[i] = TextPart(piece)
		case *v1.Part:
			made[i] = piece
		case *v1.ToolCall:
			made[i] = &v1.Part{Content: &v1.Part_ToolCall{ToolCall: piece}}
		}
	}
	return made
}
