package dev.trunkline.conformance;

/** A client of one flavour, and all that a case may do with it. */
interface Calls extends AutoCloseable {
  int MOST_TURNS = 8;
  int WARM_UP_STREAMS = 100;
  String PROMPT = "Hi";

  /** Makes the calls of one case, and tells what it sees. */
  void make(Order order, Seen seen) throws Exception;

  @Override
  void close();
}
