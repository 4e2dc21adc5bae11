package dev.trunkline;

/** The call was given up half-way, as where an answer broke off. */
public final class AbortedException extends TrunklineException {
  private static final long serialVersionUID = 1;

  AbortedException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
