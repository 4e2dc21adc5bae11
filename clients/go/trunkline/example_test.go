package trunkline_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func Example() {
	client, err := trunkline.NewClient("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	completion, err := client.Complete(context.Background(), trunkline.Prompt("Why is the sky blue?"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(trunkline.Text(completion))
}

func ExampleClient_Stream() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := trunkline.NewClient("gateway.example.com:443", trunkline.WithTLS(nil), trunkline.WithAPIKey("..."))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	stream, err := client.Stream(ctx, trunkline.Prompt("Tell me a story."), trunkline.WithModel("auto"))
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	for event, err := range stream.Events() {
		if err != nil {
			log.Fatal(err)
		}
		switch event := event.GetEvent().(type) {
		case *v1.CompleteResponse_TextDelta:
			fmt.Print(event.TextDelta.GetText())
		case *v1.CompleteResponse_RouteSelected:
			log.Print(event.RouteSelected.GetRoute().GetProvider())
		}
	}
}

func ExampleError() {
	err := fmt.Errorf("asking: %w", &trunkline.Error{
		Family:  trunkline.ErrResourceExhausted,
		Reason:  trunkline.ReasonRateLimited,
		Message: "slow down",
	})

	var failed *trunkline.Error
	switch {
	case errors.Is(err, trunkline.ErrUnavailable):
		fmt.Println("later")
	case errors.As(err, &failed) && failed.Reason == trunkline.ReasonRateLimited:
		fmt.Println("slower:", failed.Message)
	}
	// Output: slower: slow down
}

func ExampleArguments() {
	call := &v1.ToolCall{Name: "add", ArgumentsJson: `{"a": 2, "b": 3}`}

	given, err := trunkline.Arguments[struct{ A, B float64 }](call)
	if err != nil {
		log.Fatal(err)
	}
	answer := trunkline.ToolResult(call, fmt.Sprint(given.A+given.B))

	fmt.Println(answer.GetParts()[0].GetToolResult().GetParts()[0].GetText())
	// Output: 5
}

func ExampleFold() {
	delta := func(text string) *v1.CompleteResponse {
		return &v1.CompleteResponse{Event: &v1.CompleteResponse_TextDelta{TextDelta: &v1.TextDelta{Text: text}}}
	}

	completion := trunkline.Fold(slices.Values([]*v1.CompleteResponse{delta("Hel"), delta("lo")}))

	fmt.Println(trunkline.Text(completion))
	// Output: Hello
}
