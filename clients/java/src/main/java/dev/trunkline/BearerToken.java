package dev.trunkline;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.SecurityLevel;
import io.grpc.Status;
import java.util.concurrent.Executor;

/** The key, for connections that nobody else can read. */
final class BearerToken extends CallCredentials {
  private final Metadata headers = new Metadata();

  BearerToken(String apiKey) {
    headers.put(Headers.AUTHORIZATION, "Bearer " + apiKey);
  }

  @Override
  public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
    if (call.getSecurityLevel() == SecurityLevel.PRIVACY_AND_INTEGRITY) {
      applier.apply(headers);
    } else {
      // The caller's own channel credentials may turn out to be none.
      applier.fail(Status.UNAUTHENTICATED.withDescription("the key is not sent in plaintext"));
    }
  }
}
