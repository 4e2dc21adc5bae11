package dev.trunkline;

/** A mistake of the gateway; its log has the rest under {@link #getRequestId()}. */
public final class InternalException extends TrunklineException {
  private static final long serialVersionUID = 1;

  InternalException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
