package dev.trunkline;

/** The call was cancelled: closed, or the thread that waited for it interrupted. */
public final class CancelledException extends TrunklineException {
  private static final long serialVersionUID = 1;

  CancelledException(ErrorDetails details, Throwable cause) {
    super(details, cause);
  }
}
