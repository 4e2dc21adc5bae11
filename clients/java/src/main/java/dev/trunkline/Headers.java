package dev.trunkline;

import io.grpc.Metadata;
import java.util.Locale;
import java.util.regex.Pattern;

/**
 * Headers that a caller may add. All is checked before anything is sent, and no message repeats a
 * value: it may be a secret.
 */
final class Headers {
  static final Metadata.Key<String> AUTHORIZATION = key("authorization");
  static final Metadata.Key<String> REQUEST_ID = key("x-request-id");

  private static final Pattern NAME = Pattern.compile("[0-9a-z_.-]+");
  // As a header, "authorization" would pass by the check for plaintext: it is the key's alone.
  private static final Pattern RESERVED = Pattern.compile("grpc-.*|authorization");
  private static final Pattern TEXT = Pattern.compile("[\\x20-\\x7e]*");

  private Headers() {}

  static void set(Metadata headers, String name, String value) {
    String checked = checkedName(name, false);
    if (!TEXT.matcher(value).matches()) {
      throw new IllegalArgumentException(checked + ": only printable ASCII can be sent");
    }
    replace(headers, key(checked), value);
  }

  static void set(Metadata headers, String name, byte[] value) {
    var key = Metadata.Key.of(checkedName(name, true), Metadata.BINARY_BYTE_MARSHALLER);
    replace(headers, key, value.clone());
  }

  private static <T> void replace(Metadata headers, Metadata.Key<T> key, T value) {
    headers.discardAll(key);
    headers.put(key, value);
  }

  private static String checkedName(String name, boolean isBinary) {
    String lower = name.toLowerCase(Locale.ROOT);
    if (!NAME.matcher(lower).matches() || RESERVED.matcher(lower).matches()) {
      throw new IllegalArgumentException(
          "'" + lower + "' cannot be sent as a header; a key is given as apiKey");
    }
    if (lower.endsWith(Metadata.BINARY_HEADER_SUFFIX) != isBinary) {
      throw new IllegalArgumentException(
          lower + ": bytes need a name that ends with -bin, and text one that does not");
    }
    return lower;
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}
