package dev.trunkline;

/** The request itself is wrong; {@link #getFieldViolations()} says where. */
public final class InvalidRequestException extends TrunklineException {
  private static final long serialVersionUID = 1;

  InvalidRequestException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
