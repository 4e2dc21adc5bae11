package dev.trunkline;

/** Something else has to change before this request can be served. */
public final class FailedPreconditionException extends TrunklineException {
  private static final long serialVersionUID = 1;

  FailedPreconditionException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
