package dev.trunkline;

import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.regex.Pattern;

/**
 * Makes a client, and speaks plaintext unless it is told otherwise.
 *
 * @param <C> {@link TrunklineClient} or {@link AsyncTrunklineClient}
 */
public final class ClientBuilder<C> {
  private static final int KIB = 1024;
  private static final int MIB = 1024 * 1024;
  private static final Pattern API_KEY = Pattern.compile("[\\x21-\\x7e]+");

  private final String target;
  private final Function<Connection, C> client;
  private final Metadata headers = new Metadata();
  private String apiKey;
  private boolean tls;
  private byte[] rootCertificates;
  private ChannelCredentials channelCredentials;
  private boolean allowInsecureKey;
  private Duration defaultTimeout = Duration.ofSeconds(600);
  private Consumer<? super ManagedChannelBuilder<?>> channelOptions = builder -> {};

  ClientBuilder(String target, Function<Connection, C> client) {
    this.target = Objects.requireNonNull(target);
    this.client = client;
  }

  /**
   * Sent with each call. In plaintext only on this machine, unless {@link #allowInsecureKey}.
   *
   * @param apiKey printable ASCII; null for none
   * @throws IllegalArgumentException it cannot be sent as it is
   */
  public ClientBuilder<C> apiKey(String apiKey) {
    if (apiKey != null && !API_KEY.matcher(apiKey).matches()) {
      throw new IllegalArgumentException(
          "apiKey must be printable ASCII without spaces or line ends");
    }
    this.apiKey = apiKey;
    return this;
  }

  /**
   * Use TLS, with the roots of this Java installation.
   *
   * @param tls false, the default, for plaintext
   */
  public ClientBuilder<C> tls(boolean tls) {
    this.tls = tls;
    return this;
  }

  /**
   * Use TLS, with these roots.
   *
   * @param pem one or more certificates
   */
  public ClientBuilder<C> rootCertificates(byte[] pem) {
    this.rootCertificates = pem.clone();
    return this;
  }

  /**
   * Used as they are, as for mutual TLS; {@link #tls} and {@link #rootCertificates} do not count
   * then.
   *
   * @param channelCredentials the key of the gateway is added to these
   */
  public ClientBuilder<C> channelCredentials(ChannelCredentials channelCredentials) {
    this.channelCredentials = Objects.requireNonNull(channelCredentials);
    return this;
  }

  /**
   * Send the key over a network in plaintext.
   *
   * @param allowInsecureKey false by default
   */
  public ClientBuilder<C> allowInsecureKey(boolean allowInsecureKey) {
    this.allowInsecureKey = allowInsecureKey;
    return this;
  }

  /**
   * For a whole call that does not say. The service config ends completions after 600 s and catalog
   * calls after 10 s in any case.
   *
   * @param defaultTimeout 600 s unless set
   */
  public ClientBuilder<C> defaultTimeout(Duration defaultTimeout) {
    this.defaultTimeout = Objects.requireNonNull(defaultTimeout);
    return this;
  }

  /**
   * A header of every call, in place of one of the same name.
   *
   * @param name not {@code authorization}, nor one that begins with {@code grpc-}
   * @param value printable ASCII
   * @throws IllegalArgumentException it cannot be sent
   */
  public ClientBuilder<C> header(String name, String value) {
    Headers.set(headers, name, value);
    return this;
  }

  /**
   * A header of bytes of every call, in place of one of the same name.
   *
   * @param name ends with {@code -bin}
   * @param value any bytes
   * @throws IllegalArgumentException it cannot be sent
   */
  public ClientBuilder<C> header(String name, byte[] value) {
    Headers.set(headers, name, value);
    return this;
  }

  /**
   * The last word on the channel: executors, interceptors, user agent and whatever else gRPC
   * offers.
   *
   * @param channelOptions is given the channel's builder, on which all of this client's options are
   *     set already
   */
  public ClientBuilder<C> channelOptions(
      Consumer<? super ManagedChannelBuilder<?>> channelOptions) {
    this.channelOptions = Objects.requireNonNull(channelOptions);
    return this;
  }

  /**
   * Makes the client. It connects when it is first used.
   *
   * @return a client, to be closed
   * @throws IllegalArgumentException the key would leave this machine in plaintext, or the target
   *     is none
   */
  public C build() {
    ManagedChannelBuilder<?> channel = Grpc.newChannelBuilder(target, credentials());
    configure(channel);
    channelOptions.accept(channel);
    return client.apply(new Connection(channel.build(), allHeaders(), defaultTimeout));
  }

  private boolean isPlaintext() {
    return channelCredentials == null && !tls && rootCertificates == null;
  }

  private ChannelCredentials credentials() {
    if (isPlaintext()) {
      if (apiKey != null && !allowInsecureKey && !Targets.isLocal(target)) {
        throw new IllegalArgumentException(
            "the key would travel to "
                + target
                + " in plaintext: use tls or rootCertificates, or say allowInsecureKey");
      }
      return InsecureChannelCredentials.create();
    }
    ChannelCredentials secure = channelCredentials != null ? channelCredentials : tlsCredentials();
    return apiKey == null
        ? secure
        : CompositeChannelCredentials.create(secure, new BearerToken(apiKey));
  }

  private ChannelCredentials tlsCredentials() {
    TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder();
    if (rootCertificates != null) {
      try {
        builder.trustManager(new ByteArrayInputStream(rootCertificates));
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
    return builder.build();
  }

  private Metadata allHeaders() {
    var all = new Metadata();
    all.merge(headers);
    if (apiKey != null && isPlaintext()) {
      all.put(Headers.AUTHORIZATION, "Bearer " + apiKey);
    }
    return all;
  }

  private void configure(ManagedChannelBuilder<?> channel) {
    channel
        .defaultServiceConfig(ServiceConfig.PUBLISHED)
        .enableRetry()
        // A call whose request does not fit in here is never retried. All calls together are not
        // limited: what is kept for a retry is the request message, which its caller holds anyway.
        .perRpcBufferLimit(33 * MIB)
        .retryBufferSize(Long.MAX_VALUE)
        .maxInboundMessageSize(64 * MIB)
        // Details of an error come as a header: one too large ends the connection, and all its calls.
        .maxInboundMetadataSize(64 * KIB)
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS);
    if (isPlaintext() && Targets.isLocal(target)) {
      // A proxy of the environment's would carry the call, and the key, off this machine.
      channel.proxyDetector(address -> null);
    }
  }
}
