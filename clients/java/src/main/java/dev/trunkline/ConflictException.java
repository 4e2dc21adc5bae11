package dev.trunkline;

/** Something with this name or key exists already. */
public final class ConflictException extends TrunklineException {
  private static final long serialVersionUID = 1;

  ConflictException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
