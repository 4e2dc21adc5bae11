package dev.trunkline;

import java.net.InetAddress;
import java.net.URLDecoder;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What the text of a gRPC target says about where it leads. */
final class Targets {
  // Nothing else may stand there: of "127.0.0.1:1@example.com" a URI's host is what follows the
  // "@".
  private static final Pattern ADDRESS =
      Pattern.compile(
          "\\[(?<bracketed>[^\\]]*)\\](:\\d*)?|(?<name>[^:]*)(:\\d*)?|(?<bare>[^\\[\\]]*)");
  private static final Pattern IPV4_LOOPBACK =
      Pattern.compile("127(\\.(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)){3}");
  private static final Pattern IPV6 = Pattern.compile("[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*");

  private Targets() {}

  /** Does every address of this target stay on this machine? Of names only localhost does. */
  static boolean isLocal(String target) {
    int colon = target.indexOf(':');
    String rest = target.substring(colon + 1);
    return switch (colon < 0 ? "" : target.substring(0, colon)) {
      case "unix", "unix-abstract" -> true;
      case "ipv4", "ipv6" ->
          Arrays.stream(decoded(rest).replaceFirst("^/+", "").split(",", -1))
              .allMatch(Targets::isLoopback);
      // With an authority a name server is asked, and who knows what it answers.
      case "dns" -> isLoopback(rest.replaceFirst("^///", ""));
      default -> isLoopback(target);
    };
  }

  private static String decoded(String percentEncoded) {
    return URLDecoder.decode(percentEncoded.replace("+", "%2B"), StandardCharsets.UTF_8);
  }

  private static boolean isLoopback(String address) {
    Matcher parts = ADDRESS.matcher(address);
    if (!parts.matches()) {
      return false;
    }
    String name = parts.group("name");
    if (name != null) {
      return name.equalsIgnoreCase("localhost") || IPV4_LOOPBACK.matcher(name).matches();
    }
    String bracketed = parts.group("bracketed");
    return isIpv6Loopback(bracketed != null ? bracketed : parts.group("bare"));
  }

  private static boolean isIpv6Loopback(String host) {
    try {
      // Of a literal no name server is asked.
      return IPV6.matcher(host).matches() && InetAddress.getByName(host).isLoopbackAddress();
    } catch (UnknownHostException notAnAddress) {
      return false;
    }
  }
}
