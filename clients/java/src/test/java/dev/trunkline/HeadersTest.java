package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Metadata;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class HeadersTest {
  private static final String SECRET = "very-secret";

  @ParameterizedTest
  @CsvSource({
    "bad name,x",
    "'',x",
    "grpc-timeout,1S",
    "Authorization," + SECRET,
    "x-bin," + SECRET,
    "x-text," + SECRET + "é"
  })
  void aHeaderThatIsNoneIsRefusedWithoutRepeatingItsValue(String name, String value) {
    var settings = CallSettings.builder();
    var client = TrunklineClient.builder("127.0.0.1:1");

    var refused = assertThrows(IllegalArgumentException.class, () -> settings.header(name, value));
    assertThrows(IllegalArgumentException.class, () -> client.header(name, value));

    assertFalse(refused.getMessage().contains(SECRET));
  }

  @Test
  void bytesNeedANameOfTheirOwn() {
    var settings = CallSettings.builder();

    assertThrows(IllegalArgumentException.class, () -> settings.header("x-text", new byte[1]));
  }

  @Test
  void theLastOfTwoValuesCounts() {
    var headers =
        CallSettings.builder()
            .header("X-Text", "a")
            .header("x-text", "b")
            .header("x-some-bin", new byte[] {0, 1})
            .traceparent("00-1-2-01")
            .tracestate("a=b")
            .requestId("req_12345")
            .build()
            .headers();

    var text = Metadata.Key.of("x-text", Metadata.ASCII_STRING_MARSHALLER);
    var bytes = Metadata.Key.of("x-some-bin", Metadata.BINARY_BYTE_MARSHALLER);
    assertEquals("b", headers.get(text));
    assertArrayEquals(new byte[] {0, 1}, headers.get(bytes));
    assertEquals("req_12345", headers.get(Headers.REQUEST_ID));
    assertEquals(5, headers.keys().size());
  }

  @ParameterizedTest
  @ValueSource(strings = {"short", "has spaces in it", "line\nends\n"})
  void aRequestIdThatTheGatewayWouldNotTakeIsRefused(String requestId) {
    var settings = CallSettings.builder();

    assertThrows(IllegalArgumentException.class, () -> settings.requestId(requestId));
  }
}
