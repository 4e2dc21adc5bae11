package dev.trunkline;

/** A limit was met; without a reason of the gateway's, gRPC's own on the size of messages. */
public final class ResourceExhaustedException extends TrunklineException {
  private static final long serialVersionUID = 1;

  ResourceExhaustedException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
