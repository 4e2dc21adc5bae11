package dev.trunkline.examples;

import dev.trunkline.SpecOptions;
import dev.trunkline.TrunklineClient;
import dev.trunkline.TrunklineException;

/**
 * Streams one answer to the terminal, then says who gave it and what it took.
 *
 * <pre>StreamAnswer "Why is the sky blue?" --target 127.0.0.1:50051 [--model MODEL] [--tls]</pre>
 */
public final class StreamAnswer {
  private static final String QUESTION = "What is the capital of France? Answer in one sentence.";

  private StreamAnswer() {}

  /** Exit code 1 where the gateway answered with an error. */
  public static void main(String[] arguments) {
    var given = Options.of(QUESTION, arguments);
    var options = SpecOptions.builder().model(given.model()).temperature(0).build();
    try (var client = given.build(TrunklineClient.builder(given.target()));
        var stream = client.stream(given.prompt(), options)) {
      stream
          .textDeltas()
          .forEach(
              piece -> {
                System.out.print(piece);
                System.out.flush();
              });
      var answer = stream.completion();
      var route = answer.getRoute();
      System.out.printf(
          "%n%n%s/%s, %d output tokens%n",
          route.getProvider(), route.getModel(), answer.getUsage().getOutputTokens());
    } catch (TrunklineException error) {
      System.err.println("\n" + error);
      System.exit(1);
    }
  }
}
