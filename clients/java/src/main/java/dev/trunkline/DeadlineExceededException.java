package dev.trunkline;

/** The caller's deadline passed, or the providers took too long. */
public final class DeadlineExceededException extends TrunklineException {
  private static final long serialVersionUID = 1;

  DeadlineExceededException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
