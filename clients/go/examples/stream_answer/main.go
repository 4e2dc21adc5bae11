// Streams one answer to the terminal, then says who gave it and what it took.
//
//	go run ./examples/stream_answer --target 127.0.0.1:50051 "Why is the sky blue?"
//
// The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/trunkline/trunkline/clients/go/trunkline"
)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "of the gateway")
	model := flag.String("model", "", "empty: the gateway decides")
	useTLS := flag.Bool("tls", false, "encrypt")
	flag.Parse()
	prompt := "What is the capital of France? Answer in one sentence."
	if flag.NArg() > 0 {
		prompt = flag.Arg(0)
		flag.CommandLine.Parse(flag.Args()[1:]) // Options may follow the prompt.
	}

	var options []trunkline.ClientOption
	if key, ok := os.LookupEnv("TRUNKLINE_API_KEY"); ok {
		options = append(options, trunkline.WithAPIKey(key))
	}
	if *useTLS {
		options = append(options, trunkline.WithTLS(nil))
	}
	if err := run(*target, *model, prompt, options); err != nil {
		fmt.Fprintf(os.Stderr, "\n%v\n", err)
		os.Exit(1)
	}
}

func run(target, model, prompt string, options []trunkline.ClientOption) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := trunkline.NewClient(target, options...)
	if err != nil {
		return err
	}
	defer client.Close()

	stream, err := client.Stream(ctx, trunkline.Prompt(prompt), trunkline.WithModel(model), trunkline.WithTemperature(0))
	if err != nil {
		return err
	}
	defer stream.Close()
	for text, err := range stream.TextDeltas() {
		if err != nil {
			return err
		}
		fmt.Print(text)
	}
	answer, err := stream.Completion()
	if err != nil {
		return err
	}
	route, usage := answer.GetRoute(), answer.GetUsage()
	fmt.Printf("\n\n%s/%s, %d output tokens\n", route.GetProvider(), route.GetModel(), usage.GetOutputTokens())
	return nil
}
