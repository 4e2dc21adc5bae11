package dev.trunkline;

/** The key may not do this. */
public final class PermissionDeniedException extends TrunklineException {
  private static final long serialVersionUID = 1;

  PermissionDeniedException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
