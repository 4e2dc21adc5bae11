package dev.trunkline;

import java.util.List;
import java.util.Map;

/** What Trunkline publishes for its clients: which calls are tried again, when, and how often. */
final class ServiceConfig {
  private static final String COMPLETIONS = "trunkline.v1.CompletionService";

  /** As JSON would be decoded: to gRPC every number is a double. */
  static final Map<String, ?> PUBLISHED =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(
                      Map.of("service", COMPLETIONS, "method", "Complete"),
                      Map.of("service", COMPLETIONS, "method", "CompleteUnary")),
                  "timeout",
                  "600s",
                  "retryPolicy",
                  retryPolicy(3, "0.2s", "2s")),
              Map.of(
                  "name",
                  List.of(Map.of("service", "trunkline.v1.CatalogService")),
                  "timeout",
                  "10s",
                  "waitForReady",
                  true,
                  "retryPolicy",
                  retryPolicy(4, "0.1s", "1s"))),
          "retryThrottling",
          Map.of("maxTokens", 10.0, "tokenRatio", 0.1),
          "healthCheckConfig",
          Map.of("serviceName", COMPLETIONS));

  private ServiceConfig() {}

  private static Map<String, ?> retryPolicy(
      double maxAttempts, String initialBackoff, String maxBackoff) {
    return Map.of(
        "maxAttempts", maxAttempts,
        "initialBackoff", initialBackoff,
        "maxBackoff", maxBackoff,
        "backoffMultiplier", 2.0,
        "retryableStatusCodes", List.of("UNAVAILABLE"));
  }
}
