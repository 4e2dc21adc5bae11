package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TargetsTest {
  private static final String KEY = "sk-very-secret";

  @ParameterizedTest
  @ValueSource(
      strings = {
        "127.0.0.1:50051",
        "127.8.8.8:50051",
        "localhost:50051",
        "LOCALHOST",
        "[::1]:50051",
        "::1",
        "dns:///localhost:50051",
        "dns:localhost",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "ipv6:[::1]:50051",
        "ipv6:%5B::1%5D:50051",
        "unix:/run/trunkline.sock",
        "unix:///run/trunkline.sock",
        "unix-abstract:trunkline"
      })
  void staysOnThisMachine(String target) {
    assertTrue(Targets.isLocal(target));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "gateway.example:50051",
        "dns:///gateway.example:50051",
        "10.0.0.1:50051",
        "[2001:db8::1]:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "ipv4:127.0.0.1:1,",
        "localhost.example:50051",
        "127.0.0.1.example:50051",
        "127.0.0.256:50051",
        "127.0.0.1:1@gateway.example",
        "localhost@gateway.example:1",
        "dns:///gateway.example?/localhost:1",
        "dns:///gateway.example#/localhost:1",
        "dns://gateway.example",
        "dns://8.8.8.8/localhost:50051",
        "localhost:1/path",
        "xds:///localhost:1",
        ""
      })
  void leavesThisMachine(String target) {
    assertFalse(Targets.isLocal(target));
  }

  @ParameterizedTest
  @ValueSource(strings = {"gateway.example:50051", "127.0.0.1:1@gateway.example"})
  void aKeyDoesNotLeaveThisMachineInPlaintext(String target) {
    var builder = TrunklineClient.builder(target).apiKey(KEY);

    var refused = assertThrows(IllegalArgumentException.class, builder::build);

    assertTrue(refused.getMessage().contains("plaintext"));
    assertFalse(refused.getMessage().contains(KEY));
  }

  @ParameterizedTest
  @ValueSource(strings = {"127.0.0.1:50051", "localhost:50051", "[::1]:50051"})
  void aKeyMayBeUsedOnThisMachine(String target) {
    assertDoesNotThrow(() -> TrunklineClient.builder(target).apiKey(KEY).build().close());
  }

  @ParameterizedTest
  @ValueSource(strings = {"", KEY + "\n", KEY + " ", KEY + "é"})
  void aKeyThatIsNoHeaderIsRefusedWithoutRepeatingIt(String key) {
    var builder = TrunklineClient.builder("127.0.0.1:1");

    var refused = assertThrows(IllegalArgumentException.class, () -> builder.apiKey(key));

    assertEquals(
        "apiKey must be printable ASCII without spaces or line ends", refused.getMessage());
  }
}
