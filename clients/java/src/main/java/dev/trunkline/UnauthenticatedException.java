package dev.trunkline;

/** The gateway does not know who asks. */
public final class UnauthenticatedException extends TrunklineException {
  private static final long serialVersionUID = 1;

  UnauthenticatedException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
