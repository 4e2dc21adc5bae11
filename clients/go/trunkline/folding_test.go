package trunkline

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestFolding(t *testing.T) {
	for _, test := range []struct {
		name   string
		events []string
		want   string
	}{
		{"no events are an empty completion", nil, `{}`},
		{
			"interleaved kinds of parts keep their order",
			[]string{
				`{"reasoningDelta": {"text": "Hm"}}`,
				`{"textDelta": {"partIndex": 1, "text": "A"}}`,
				`{"reasoningDelta": {"text": "m."}}`,
				`{"toolCallDelta": {"partIndex": 2, "id": "a", "name": "f", "argumentsJson": "{\"x\":"}}`,
				`{"textDelta": {"partIndex": 1, "text": "B"}}`,
				`{"toolCallDelta": {"partIndex": 2, "argumentsJson": "1}"}}`,
				`{"refusalDelta": {"partIndex": 3, "text": "No"}}`,
				`{"textDelta": {"partIndex": 10, "text": "C"}}`,
			},
			`{"choices": [{"message": {"role": "ROLE_ASSISTANT", "parts": [
				{"reasoning": {"text": "Hmm."}}, {"text": "AB"},
				{"toolCall": {"id": "a", "name": "f", "argumentsJson": "{\"x\":1}"}},
				{"refusal": "No"}, {"text": "C"}]}}]}`,
		},
		{
			"choices are folded apart",
			[]string{
				`{"textDelta": {"choiceIndex": 1, "text": "B"}}`,
				`{"textDelta": {"text": "A"}}`,
				`{"choiceFinished": {"choiceIndex": 1, "finishReason": "FINISH_REASON_LENGTH"}}`,
				`{"textDelta": {"choiceIndex": 1, "text": "b"}}`,
				`{"choiceFinished": {"finishReason": 77}}`,
			},
			`{"choices": [
				{"message": {"role": "ROLE_ASSISTANT", "parts": [{"text": "A"}]}, "finishReason": 77},
				{"index": 1, "message": {"role": "ROLE_ASSISTANT", "parts": [{"text": "Bb"}]}, "finishReason": "FINISH_REASON_LENGTH"}]}`,
		},
		{
			"a completed part takes the place of its deltas",
			[]string{
				`{"toolCallDelta": {"id": "a", "name": "f", "argumentsJson": "{\"x"}}`,
				`{"partCompleted": {"part": {"toolCall": {"id": "a", "name": "f", "argumentsJson": "{}"}, "providerState": {"data": "AAE="}}}}`,
			},
			`{"choices": [{"message": {"role": "ROLE_ASSISTANT", "parts": [
				{"toolCall": {"id": "a", "name": "f", "argumentsJson": "{}"}, "providerState": {"data": "AAE="}}]}}]}`,
		},
		{
			"state alone joins what the deltas said",
			[]string{
				`{"textDelta": {"text": "Hé"}}`,
				`{"partCompleted": {"part": {"providerState": {"data": "AAE="}}}}`,
			},
			`{"choices": [{"message": {"role": "ROLE_ASSISTANT", "parts": [{"text": "Hé", "providerState": {"data": "AAE="}}]}}]}`,
		},
		{
			"a reset forgets its hop and no other",
			[]string{
				`{"routeSelected": {"route": {"hop": 0}}}`,
				`{"textDelta": {"text": "kept"}}`,
				`{"routeSelected": {"route": {"hop": 1}}}`,
				`{"textDelta": {"partIndex": 1, "text": "lost"}}`,
				`{"artifact": {"id": "lost"}}`,
				`{"choiceFinished": {"finishReason": "FINISH_REASON_LENGTH"}}`,
				`{"streamReset": {"hop": 1}}`,
				`{"textDelta": {"partIndex": 1, "text": "again"}}`,
			},
			`{"route": {"hop": 1}, "choices": [{"message": {"role": "ROLE_ASSISTANT", "parts": [{"text": "kept"}, {"text": "again"}]}}]}`,
		},
		{
			"the last event fills in and wins but need not repeat messages",
			[]string{
				`{"started": {"completionId": "cmpl_1", "requestId": "req_12345"}}`,
				`{"textDelta": {"text": "Hé"}}`,
				`{"completed": {"completion": {"id": "cmpl_2", "choices": [{"finishReason": "FINISH_REASON_STOP"}], "usage": {"outputTokens": 7}}}}`,
			},
			`{"id": "cmpl_2", "requestId": "req_12345", "usage": {"outputTokens": 7}, "choices": [
				{"message": {"role": "ROLE_ASSISTANT", "parts": [{"text": "Hé"}]}, "finishReason": "FINISH_REASON_STOP"}]}`,
		},
		{
			"reports are gathered",
			[]string{
				`{"attemptFailed": {"attempt": {"id": "1"}}}`,
				`{"streamReset": {"failedAttempt": {"id": "1"}}}`,
				`{"skillsActivated": {"skills": [{"id": "s"}]}}`,
				`{"serverToolCall": {"id": "t", "name": "search", "state": "SERVER_TOOL_STATE_STARTED"}}`,
				`{"serverToolCall": {"id": "t", "state": "SERVER_TOOL_STATE_SUCCEEDED"}}`,
				`{"usageUpdate": {"usage": {"outputTokens": 1}}}`,
				`{"interrupted": {"usage": {"inputTokens": 5}, "attempts": [{"id": "1"}, {"id": "2"}]}}`,
			},
			`{"attempts": [{"id": "1"}, {"id": "2"}], "skills": [{"id": "s"}], "usage": {"inputTokens": 5},
				"serverToolCalls": [{"id": "t", "name": "search", "state": "SERVER_TOOL_STATE_SUCCEEDED"}]}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var events, before []*v1.CompleteResponse
			for _, event := range test.events {
				events = append(events, from[v1.CompleteResponse](t, event))
				before = append(before, from[v1.CompleteResponse](t, event))
			}

			wants(t, Fold(slices.Values(events)), test.want)

			for i := range events {
				if !proto.Equal(events[i], before[i]) {
					t.Errorf("the event was changed to %v", events[i])
				}
			}
		})
	}
}

func TestAnEventOfANewerContractIsLetThrough(t *testing.T) {
	newer := new(v1.CompleteResponse)
	if err := proto.Unmarshal([]byte("\xfa\x07\x02\x08\x01"), newer); err != nil {
		t.Fatal(err)
	}

	wants(t, Fold(slices.Values([]*v1.CompleteResponse{newer})), `{}`)
}

func TestWhatWasFoldedIsACopy(t *testing.T) {
	var folder CompletionFolder
	folder.Feed(from[v1.CompleteResponse](t, `{"completed": {"completion": {"usage": {"outputTokens": 1}}}}`))

	folder.Completion().Usage.OutputTokens = 9

	wants(t, folder.Completion(), `{"usage": {"outputTokens": 1}}`)
	if !folder.IsCompleted() {
		t.Error("the last event has come")
	}
}
