package dev.trunkline;

/** The gateway cannot be reached, or cannot answer now. */
public final class UnavailableException extends TrunklineException {
  private static final long serialVersionUID = 1;

  UnavailableException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
