package dev.trunkline.examples;

import dev.trunkline.ClientBuilder;

/** What both programs are started with. */
record Options(String prompt, String target, String model, boolean tls) {
  static Options of(String prompt, String... arguments) {
    String target = "127.0.0.1:50051";
    String model = "";
    boolean tls = false;
    for (int i = 0; i < arguments.length; i++) {
      switch (arguments[i]) {
        case "--target" -> target = arguments[++i];
        case "--model" -> model = arguments[++i];
        case "--tls" -> tls = true;
        default -> prompt = arguments[i];
      }
    }
    return new Options(prompt, target, model, tls);
  }

  /** The key, where the gateway wants one, is read from TRUNKLINE_API_KEY. */
  <C> C build(ClientBuilder<C> client) {
    return client.apiKey(System.getenv("TRUNKLINE_API_KEY")).tls(tls).build();
  }
}
