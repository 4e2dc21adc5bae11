/**
 * Client of a Trunkline gateway.
 *
 * <pre>{@code
 * try (var client = TrunklineClient.builder("127.0.0.1:50051").build()) {
 *   System.out.println(Messages.text(client.complete("Why is the sky blue?")));
 * }
 * }</pre>
 *
 * <p>{@link dev.trunkline.TrunklineClient} blocks, {@link dev.trunkline.AsyncTrunklineClient} does
 * not. Requests and answers are the messages of the contract, in {@code dev.trunkline.v1}.
 */
package dev.trunkline;
