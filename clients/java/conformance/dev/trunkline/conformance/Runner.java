package dev.trunkline.conformance;

import com.google.gson.JsonObject;
import dev.trunkline.TrunklineException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletionException;

/**
 * Makes the calls of the conformance cases with this client: a line of JSON in, a line of JSON out.
 * It tells what came of a call and judges nothing: the cases, and what they expect, are in
 * tests/conformance.
 *
 * <pre>java @target/conformance.args --flavour blocking|async</pre>
 */
public final class Runner {
  private Runner() {}

  public static void main(String[] arguments) throws IOException {
    boolean isAsync = arguments.length == 2 && arguments[1].equals("async");
    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      out.println(Order.JSON.toJson(run(Order.JSON.fromJson(line, JsonObject.class), isAsync)));
    }
  }

  private static JsonObject run(JsonObject line, boolean isAsync) {
    var seen = new Seen(line.get("name").getAsString());
    long beganAt = System.nanoTime();
    try {
      Order order = Order.of(line);
      try (Calls calls = isAsync ? new AsyncCalls(order) : new BlockingCalls(order)) {
        calls.make(order, seen);
      }
    } catch (TrunklineException | IllegalArgumentException | CancellationException error) {
      seen.error(error);
    } catch (CompletionException failed) {
      seen.error(failed.getCause());
    } catch (Exception | LinkageError error) {
      seen.crash(error);
    }
    seen.elapsed(Duration.ofNanos(System.nanoTime() - beganAt));
    return seen.json();
  }
}
