package dev.trunkline;

/** This gateway does not offer the call, or not with this option. */
public final class UnimplementedException extends TrunklineException {
  private static final long serialVersionUID = 1;

  UnimplementedException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
