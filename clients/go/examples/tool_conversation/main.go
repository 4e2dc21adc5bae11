// Lets a model ask this program what time it is, as often as it wants to, and prints its answer. Where no model of the
// gateway has tools, as with the embedded one alone, it says so and asks without.
//
//	go run ./examples/tool_conversation --target 127.0.0.1:50051 "What time is it in Oslo and in Tokyo?"
//
// The key, where the gateway wants one, is read from TRUNKLINE_API_KEY.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
	_ "time/tzdata" // For machines that have no list of zones.

	"github.com/trunkline/trunkline/clients/go/trunkline"
	v1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

const mostTurns = 8

var localTime = trunkline.FunctionTool("local_time", "The time of day at a place.", `{
	"type": "object",
	"properties": {"zone": {"type": "string", "description": "IANA zone, as Europe/Oslo"}},
	"required": ["zone"]
}`)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "of the gateway")
	model := flag.String("model", "", "empty: the gateway decides")
	useTLS := flag.Bool("tls", false, "encrypt")
	flag.Parse()
	question := "What time is it in Oslo and in Tokyo?"
	if flag.NArg() > 0 {
		question = flag.Arg(0)
		flag.CommandLine.Parse(flag.Args()[1:]) // Options may follow the question.
	}

	var options []trunkline.ClientOption
	if key, ok := os.LookupEnv("TRUNKLINE_API_KEY"); ok {
		options = append(options, trunkline.WithAPIKey(key))
	}
	if *useTLS {
		options = append(options, trunkline.WithTLS(nil))
	}
	answer, err := run(*target, *model, question, options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(answer)
}

func run(target, model, question string, options []trunkline.ClientOption) (string, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := trunkline.NewClient(target, options...)
	if err != nil {
		return "", err
	}
	defer client.Close()
	return ask(ctx, client, model, question)
}

// ask is what the model says, with the tool if it can.
func ask(ctx context.Context, client *trunkline.Client, model, question string) (string, error) {
	answer, err := converse(ctx, client, model, question)
	var failed *trunkline.Error
	if !errors.As(err, &failed) || failed.Reason != trunkline.ReasonCapabilityUnsupported {
		return answer, err
	}
	fmt.Fprintln(os.Stderr, "Asked without the tool:", failed.Message)
	completion, err := client.Complete(ctx, trunkline.Prompt(question), trunkline.WithModel(model), trunkline.WithMaxOutputTokens(100))
	return trunkline.Text(completion), err
}

// converse is the model's last word on the question.
func converse(ctx context.Context, client *trunkline.Client, model, question string) (string, error) {
	messages := trunkline.Messages{
		trunkline.System("Use the tool for every time of day."),
		trunkline.User(question),
	}
	for range mostTurns {
		answer, err := client.Complete(ctx, messages, trunkline.WithModel(model), trunkline.WithTools(localTime))
		if err != nil {
			return "", err
		}
		calls := trunkline.ToolCalls(answer)
		if len(calls) == 0 {
			return trunkline.Text(answer), nil
		}
		messages = append(messages, trunkline.Turns(answer)...)
		for _, call := range calls {
			messages = append(messages, result(call))
		}
	}
	return "(the model asked for tools to the end)", nil
}

// result answers one call. What is wrong with it is told to the model, which can do better.
func result(call *v1.ToolCall) *v1.Message {
	given, err := trunkline.Arguments[struct{ Zone string }](call)
	if err != nil {
		return trunkline.ToolError(call, "no arguments: "+err.Error())
	}
	zone, err := time.LoadLocation(given.Zone)
	if err != nil {
		return trunkline.ToolError(call, "no such zone: "+err.Error())
	}
	return trunkline.ToolResult(call, time.Now().In(zone).Format("15:04"))
}
