// Package trunkline is a client for a Trunkline gateway: completions whole or streamed, tools, jobs and conversations.
//
// A Client is made by NewClient and used by all goroutines. Client.Complete gives a whole answer, Client.Stream one as it
// is made:
//
//	stream, err := client.Stream(ctx, trunkline.Prompt("Tell me a story."))
//	if err != nil {
//		return err
//	}
//	defer stream.Close()
//	for text, err := range stream.TextDeltas() {
//		if err != nil {
//			return err
//		}
//		fmt.Print(text)
//	}
//
// The messages are the contract's own, of the package trunklinev1 in the folder v1.
package trunkline
