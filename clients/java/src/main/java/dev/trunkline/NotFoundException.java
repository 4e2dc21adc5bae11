package dev.trunkline;

/** What was named does not exist, or is not the caller's. */
public final class NotFoundException extends TrunklineException {
  private static final long serialVersionUID = 1;

  NotFoundException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
