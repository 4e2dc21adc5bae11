package trunkline

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Fold is the completion that these events tell, complete or not.
func Fold(events iter.Seq[*v1.CompleteResponse]) *v1.Completion {
	var folder CompletionFolder
	for event := range events {
		folder.Feed(event)
	}
	return folder.Completion()
}

// A CompletionFolder folds the events of one stream, fed in order, into the Completion that a unary call would have
// returned. The last event of a stream need not repeat what the events before it said, so the messages are put together
// here: deltas by choice and part, a completed part in place of its deltas, the content of a hop forgotten when it is
// reset. What the last event does say wins, field by field.
//
// The zero value is ready. Events belong to the folder once they were fed; it does not change them.
type CompletionFolder struct {
	report    v1.Completion // What is told about the answer, in fields that are shared with events.
	choices   []*choiceFold // In the order in which they began. There are few, of few parts: a look finds one soonest.
	artifacts []hopArtifact
	final     *v1.Completion
	hop       int32
}

type hopArtifact struct {
	hop      int32
	artifact *v1.Artifact
}

// IsCompleted says whether the event has come that ends every whole answer.
func (f *CompletionFolder) IsCompleted() bool { return f.final != nil }

// Hop is the model turn, from 0, that content belongs to now.
func (f *CompletionFolder) Hop() int32 { return f.hop }

// Feed takes the next event. One of a newer contract is let through.
func (f *CompletionFolder) Feed(event *v1.CompleteResponse) {
	switch event := event.GetEvent().(type) {
	case *v1.CompleteResponse_TextDelta:
		delta := event.TextDelta
		part := f.part(delta.GetChoiceIndex(), delta.GetPartIndex(), "text")
		part.said.WriteString(delta.GetText())
		part.logprobs = append(part.logprobs, delta.GetLogprobs()...)
	case *v1.CompleteResponse_ReasoningDelta:
		delta := event.ReasoningDelta
		part := f.part(delta.GetChoiceIndex(), delta.GetPartIndex(), "reasoning")
		part.said.WriteString(delta.GetText())
		part.reasoning().Summary = delta.GetSummary()
	case *v1.CompleteResponse_RefusalDelta:
		delta := event.RefusalDelta
		f.part(delta.GetChoiceIndex(), delta.GetPartIndex(), "refusal").said.WriteString(delta.GetText())
	case *v1.CompleteResponse_ToolCallDelta:
		delta := event.ToolCallDelta
		part := f.part(delta.GetChoiceIndex(), delta.GetPartIndex(), "tool_call")
		part.said.WriteString(delta.GetArgumentsJson())
		// Id and name are on the first delta only.
		call := part.toolCall()
		call.Id = cmp.Or(delta.GetId(), call.GetId())
		call.Name = cmp.Or(delta.GetName(), call.GetName())
	case *v1.CompleteResponse_PartCompleted:
		f.completePart(event.PartCompleted)
	case *v1.CompleteResponse_ChoiceFinished:
		choice := f.choice(event.ChoiceFinished.GetChoiceIndex())
		choice.finished, choice.finishedHop = event.ChoiceFinished, f.hop
	case *v1.CompleteResponse_RouteSelected:
		route := event.RouteSelected.GetRoute()
		f.hop = route.GetHop()
		f.report.Route = cmp.Or(route, &v1.Route{})
	case *v1.CompleteResponse_StreamReset:
		f.forget(event.StreamReset.GetHop())
		f.addAttempt(event.StreamReset.GetFailedAttempt())
	case *v1.CompleteResponse_Artifact:
		f.artifacts = append(f.artifacts, hopArtifact{f.hop, event.Artifact})
	case *v1.CompleteResponse_Completed:
		f.final = cmp.Or(event.Completed.GetCompletion(), &v1.Completion{})
	default:
		f.note(event)
	}
}

// note takes an event that reports about the answer and holds no part of it.
func (f *CompletionFolder) note(event any) {
	report := &f.report
	switch event := event.(type) {
	case *v1.CompleteResponse_Started:
		report.Id = event.Started.GetCompletionId()
		report.RequestId = event.Started.GetRequestId()
		report.ConversationId = event.Started.GetConversationId()
		report.CreateTime = cmp.Or(event.Started.GetCreateTime(), report.CreateTime)
	case *v1.CompleteResponse_AttemptFailed:
		f.addAttempt(event.AttemptFailed.GetAttempt())
	case *v1.CompleteResponse_SkillsActivated:
		report.Skills = append(report.Skills, event.SkillsActivated.GetSkills()...)
	case *v1.CompleteResponse_GenuiMeta:
		report.Genui = event.GenuiMeta
	case *v1.CompleteResponse_ServerToolCall:
		f.noteServerToolCall(event.ServerToolCall)
	case *v1.CompleteResponse_UsageUpdate: // Cumulative, so the last one wins.
		report.Usage = cmp.Or(event.UsageUpdate.GetUsage(), &v1.Usage{})
	case *v1.CompleteResponse_Interrupted:
		report.Route = cmp.Or(event.Interrupted.GetRoute(), report.Route)
		report.Usage = cmp.Or(event.Interrupted.GetUsage(), report.Usage)
		for _, attempt := range event.Interrupted.GetAttempts() {
			f.addAttempt(attempt)
		}
	}
}

// Completion is a copy of the answer as far as it is known: whole once IsCompleted.
func (f *CompletionFolder) Completion() *v1.Completion {
	folded := proto.CloneOf(&f.report)
	for _, made := range f.artifacts {
		folded.Artifacts = append(folded.Artifacts, proto.CloneOf(made.artifact))
	}
	choices := make(map[int32]*v1.Choice, len(f.choices))
	for _, choice := range f.choices {
		choices[choice.index] = choice.value()
	}
	for _, final := range f.final.GetChoices() {
		choices[final.GetIndex()] = finalChoice(choices[final.GetIndex()], final)
	}
	overlay(folded, f.final)
	folded.Choices = nil
	for _, index := range slices.Sorted(maps.Keys(choices)) {
		folded.Choices = append(folded.Choices, choices[index])
	}
	return folded
}

func (f *CompletionFolder) choice(index int32) *choiceFold {
	for _, choice := range f.choices {
		if choice.index == index {
			return choice
		}
	}
	choice := &choiceFold{index: index}
	f.choices = append(f.choices, choice)
	return choice
}

func (f *CompletionFolder) part(choice, index int32, kind protoreflect.Name) *partFold {
	return f.choice(choice).part(index, kind, f.hop)
}

func (f *CompletionFolder) completePart(completed *v1.PartCompleted) {
	index := completed.GetPartIndex()
	kind := contentOf(completed.GetPart())
	if kind == "" {
		// Opaque state alone belongs to what the deltas began; if to nothing, to an empty text.
		kind = "text"
		for _, begun := range f.choice(completed.GetChoiceIndex()).parts {
			if begun.index == index {
				kind = begun.kind
				break
			}
		}
	}
	proto.Merge(f.part(completed.GetChoiceIndex(), index, kind).known, completed.GetPart())
}

func (f *CompletionFolder) forget(hop int32) {
	f.hop = hop
	f.artifacts = slices.DeleteFunc(f.artifacts, func(made hopArtifact) bool { return made.hop == hop })
	for _, choice := range f.choices {
		choice.forget(hop)
	}
}

func (f *CompletionFolder) addAttempt(attempt *v1.Attempt) {
	// The same failure may be told twice: when it happened, and by the reset or interruption it led to.
	isKnown := func(known *v1.Attempt) bool { return proto.Equal(known, attempt) }
	if proto.Size(attempt) > 0 && !slices.ContainsFunc(f.report.Attempts, isKnown) {
		f.report.Attempts = append(f.report.Attempts, attempt)
	}
}

func (f *CompletionFolder) noteServerToolCall(call *v1.ServerToolCall) {
	for _, known := range f.report.ServerToolCalls {
		if known.GetId() == call.GetId() {
			overlay(known, call)
			return
		}
	}
	// It is changed by what is told of it later, and the event is not.
	f.report.ServerToolCalls = append(f.report.ServerToolCalls, proto.CloneOf(call))
}

// choiceFold is one choice so far.
type choiceFold struct {
	index       int32
	parts       []*partFold // In the order in which they began.
	finished    *v1.ChoiceFinished
	finishedHop int32
}

func (c *choiceFold) part(index int32, kind protoreflect.Name, hop int32) *partFold {
	// What is said now is most often of the part that began last.
	for i := len(c.parts) - 1; i >= 0; i-- {
		if part := c.parts[i]; part.index == index && part.kind == kind {
			return part
		}
	}
	part := &partFold{index: index, kind: kind, hop: hop, known: new(v1.Part)}
	c.parts = append(c.parts, part)
	return part
}

func (c *choiceFold) forget(hop int32) {
	c.parts = slices.DeleteFunc(c.parts, func(part *partFold) bool { return part.hop == hop })
	if c.finishedHop == hop {
		c.finished = nil
	}
}

func (c *choiceFold) value() *v1.Choice {
	value := &v1.Choice{
		Index:              c.index,
		Message:            &v1.Message{Role: v1.Role_ROLE_ASSISTANT},
		FinishReason:       c.finished.GetFinishReason(),
		NativeFinishReason: c.finished.GetNativeFinishReason(),
		StopSequence:       c.finished.GetStopSequence(),
	}
	inOrder := slices.SortedFunc(slices.Values(c.parts), func(a, b *partFold) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.kind, b.kind))
	})
	for _, part := range inOrder {
		value.Message.Parts = append(value.Message.Parts, part.value())
		for _, logprob := range part.logprobs {
			value.Logprobs = append(value.Logprobs, proto.CloneOf(logprob))
		}
	}
	return value
}

// partFold is one part so far, found by its index and kind: fragments, until its final value is known.
type partFold struct {
	index    int32
	kind     protoreflect.Name // Of the field of Part that is its content.
	hop      int32
	known    *v1.Part
	said     strings.Builder
	logprobs []*v1.TokenLogprob
}

func (p *partFold) reasoning() *v1.Reasoning {
	if p.known.GetReasoning() == nil {
		p.known.Content = &v1.Part_Reasoning{Reasoning: new(v1.Reasoning)}
	}
	return p.known.GetReasoning()
}

func (p *partFold) toolCall() *v1.ToolCall {
	if p.known.GetToolCall() == nil {
		p.known.Content = &v1.Part_ToolCall{ToolCall: new(v1.ToolCall)}
	}
	return p.known.GetToolCall()
}

func (p *partFold) value() *v1.Part {
	part := proto.CloneOf(p.known)
	// A final value that leaves the text out means the one that was said.
	switch said := p.said.String(); p.kind {
	case "text":
		part.Content = &v1.Part_Text{Text: cmp.Or(part.GetText(), said)}
	case "refusal":
		part.Content = &v1.Part_Refusal{Refusal: cmp.Or(part.GetRefusal(), said)}
	case "reasoning":
		part.GetReasoning().Text = cmp.Or(part.GetReasoning().GetText(), said)
	case "tool_call":
		part.GetToolCall().ArgumentsJson = cmp.Or(part.GetToolCall().GetArgumentsJson(), said)
	}
	return part
}

func contentOf(part *v1.Part) protoreflect.Name {
	message := part.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("content"))
	if field == nil {
		return ""
	}
	return field.Name()
}

func finalChoice(folded, final *v1.Choice) *v1.Choice {
	said := proto.CloneOf(final)
	if folded == nil {
		return said
	}
	if len(said.GetMessage().GetParts()) == 0 {
		said.Message = nil
	}
	overlay(folded, said)
	return folded
}

// overlay replaces every field of under that over has set.
func overlay[M proto.Message](under, over M) {
	fields := under.ProtoReflect()
	over.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields.Clear(field)
		return true
	})
	proto.Merge(under, over)
}
