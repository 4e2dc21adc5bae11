// The runner of the conformance cases: it makes one call for each line of JSON that it reads, and tells what came of it.
// It judges nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// A line is what the runner is told to do.
type line struct {
	Name   string        `json:"name"`
	Client clientOptions `json:"client"`
	Call   call          `json:"call"`
}

// A result is what it tells. What does not apply is null or left out.
type result struct {
	Name       string     `json:"name"`
	Events     []string   `json:"events"`
	Texts      []string   `json:"texts"`
	Completion []byte     `json:"completion"`
	Text       string     `json:"text"`
	ToolCalls  []toolCall `json:"tool_calls"`
	Items      [][]byte   `json:"items"`
	Error      *failure   `json:"error"`
	ElapsedS   float64    `json:"elapsed_s"`
	LiveBytes  []uint64   `json:"live_bytes,omitempty"`
	Threads    []int      `json:"threads,omitempty"`
	Messages   int        `json:"messages,omitempty"`
	CPUS       float64    `json:"cpu_s,omitempty"`
	Crash      string     `json:"crash,omitempty"`
}

// A failure is an Error, or what the client refused.
type failure struct {
	Family          string            `json:"family"`
	Reason          string            `json:"reason,omitempty"`
	Code            string            `json:"code,omitempty"`
	Message         string            `json:"message"`
	RequestID       string            `json:"request_id"`
	RetryAfterS     *float64          `json:"retry_after_s"`
	Provider        string            `json:"provider"`
	Retryable       bool              `json:"retryable"`
	FieldViolations []fieldViolation  `json:"field_violations"`
	Metadata        map[string]string `json:"metadata"`
}

type fieldViolation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
	Reason      string `json:"reason"`
}

type toolCall struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	ArgumentsJSON string `json:"arguments_json"`
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	results := json.NewEncoder(os.Stdout)
	results.SetEscapeHTML(false)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := results.Encode(run(text)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func run(text []byte) (told *result) {
	var order line
	told = &result{Events: []string{}, Texts: []string{}, Items: [][]byte{}}
	defer func() {
		if problem := recover(); problem != nil {
			told = &result{Name: order.Name, Crash: fmt.Sprint(problem)}
		}
	}()
	if err := json.Unmarshal(text, &order); err != nil {
		panic(err)
	}
	told.Name = order.Name
	begun := time.Now()
	err := order.run(told)
	if told.ElapsedS == 0 {
		told.ElapsedS = time.Since(begun).Seconds()
	}
	told.Error = failureOf(err)
	return told
}
